// Detectors: how far two samples of one signal lie apart, whether chance explains it, and whether it matters.
//
// A detector is given what a profile without text can hold: values with their counts, counts over categories, vectors,
// or the mean of random features. One file a kind in monitor/drift/. docs/drift.md has the measured false-alarm rates.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/schema.h"
#include "monitor/random_features.h"

namespace retort {

/// A sample of a scalar signal: distinct values in rising order and how often each occurs. A quantile sketch is the
/// same with its items and their weights.
struct Values {
  std::vector<double> distinct;
  std::vector<int64_t> counts;
  int64_t total = 0;  ///< sum of counts
};
/// Error(bad_input) for NaN or infinity; an empty sample is refused by compare().
Values values_of(std::span<const double> sample);
/// Of values in any order, each with its count. Error(bad_input) also for a count below one or unequal lengths.
Values values_of(std::span<const double> values, std::span<const int64_t> counts);

/// Rows of `dimensions` numbers each, one row after the other.
struct Vectors {
  std::span<const double> numbers;
  size_t dimensions = 1;
  size_t rows() const { return numbers.size() / dimensions; }
  std::span<const double> row(size_t i) const { return numbers.subspan(i * dimensions, dimensions); }
};

/// One entry of a recipe's `drift.detectors`.
struct DetectorOptions {
  std::string kind;
  std::string profile = "retort";  ///< whose bins and rules: "retort", or a peer's to compare with its figures
  std::optional<double> limit;     ///< of the effect; the kind's own when absent
  int64_t permutations = 999;      ///< smallest p-value is 1 / (permutations + 1)
  int64_t seed = 1;                ///< of permutations and folds
  std::optional<double> gamma;     ///< of the kernel exp(-gamma d^2); the median heuristic when absent
  bool p_value = true;  ///< false: statistic and effect only, for a null of the caller's (monitor/calibration.h)
  /// The statistic that chance alone gives, of such a null, for the effects that leave it out; by the statistic's own
  /// law for independent rows when absent.
  std::optional<double> chance = std::nullopt;
};
const Schema<DetectorOptions>& schema_of(DetectorOptions*);

/// What a detector says of two samples.
struct Detection {
  std::string name;      ///< "psi", "psi.evidently"
  double statistic = 0;  ///< large where the samples differ
  /// P(a statistic at least this large) when both samples come from one distribution and rows are independent; in
  /// (0, 1]. NaN where it was not asked for, or cannot be known from what was given (means of features): then it is
  /// read from a calibrated null.
  double p_value = 0;
  double effect = 0;  ///< how large the difference is, whatever the sample sizes
  double limit = 0;   ///< an effect that matters
  std::map<std::string, double> details;
};

/// A kind of detector. It has the functions for what it can be given; the others are null.
struct DetectorKind {
  const char* summary;  ///< one line
  const char* effect;   ///< what the effect measures
  /// Default limit of the effect: its value when a normal distribution moves by a fifth of its standard deviation,
  /// which Cohen calls small.
  double limit;
  /// Under the null the statistic falls as (1/n + 1/m)^order, so a null of one size serves others near it.
  double order;
  std::vector<std::string> profiles = {"retort"};
  Detection (*of_values)(const Values& reference, const Values& current, const DetectorOptions& options) = nullptr;
  /// Counts of the same categories in the same order.
  Detection (*of_counts)(std::span<const int64_t> reference, std::span<const int64_t> current,
                         const DetectorOptions& options) = nullptr;
  Detection (*of_vectors)(const Vectors& reference, const Vectors& current, const DetectorOptions& options) = nullptr;
  Detection (*of_means)(const FeatureMean& reference, const FeatureMean& current,
                        const DetectorOptions& options) = nullptr;
};

/// Every kind by name.
const std::map<std::string, const DetectorKind*>& detector_kinds();
/// Error(usage) with the names that are allowed.
const DetectorKind& detector_kind(const std::string& name);

/// Runs options.kind. Error(usage) when the kind is unknown, does not take such samples or has no such profile;
/// Error(bad_input) for an empty sample, NaN, infinity, or samples that do not fit each other. `name` and `limit` are
/// filled in.
Detection compare(const Values& reference, const Values& current, const DetectorOptions& options);
Detection compare(std::span<const int64_t> reference, std::span<const int64_t> current, const DetectorOptions& options);
Detection compare(const Vectors& reference, const Vectors& current, const DetectorOptions& options);
Detection compare(const FeatureMean& reference, const FeatureMean& current, const DetectorOptions& options);

}  // namespace retort
