// Random Fourier features: the mean of a sample under a Gaussian kernel in a fixed number of numbers, which holds no
// row and merges by addition (Rahimi and Recht, Random features for large-scale kernel machines, 2007).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/json.h"

namespace retort {

/// Phi(x) = F^-1/2 (cos w_1 x, sin w_1 x, ..., cos w_F x, sin w_F x) with w ~ N(0, 2 gamma I), so that
/// Phi(x) Phi(y) estimates exp(-gamma |x - y|^2) and |Phi(x)| = 1. The same on every machine for the same four numbers.
class RandomFeatures {
 public:
  /// Error(usage) unless gamma > 0 and both sizes are at least one.
  RandomFeatures(size_t dimensions, double gamma, size_t frequencies = 512, uint64_t seed = 1);
  size_t dimensions() const { return dimensions_; }
  size_t frequencies() const { return frequencies_; }
  double gamma() const { return gamma_; }
  uint64_t seed() const { return seed_; }
  /// Adds Phi(x) to `sum` [2F]. Error(bad_input) when x is not of dimensions() finite numbers.
  void add(std::span<const double> x, std::span<double> sum) const;

 private:
  size_t dimensions_, frequencies_;
  double gamma_;
  uint64_t seed_;
  std::vector<double> weights_;  // [F, dimensions]
};

/// Sum of Phi over rows, and which features those are: what a profile keeps of a set of vectors.
struct FeatureMean {
  uint64_t seed = 1;
  size_t dimensions = 0;
  double gamma = 0;
  int64_t rows = 0;
  std::vector<double> sum;  ///< [2F]

  explicit FeatureMean(const RandomFeatures& features);
  FeatureMean() = default;
  void add(const RandomFeatures& features, std::span<const double> x);
  /// Error(bad_input) when `other` is of other features.
  void merge(const FeatureMean& other);
  Json to_json() const;
  /// Error(bad_input) naming `where` and what is wrong.
  static FeatureMean from_json(const Json& json, const std::string& where);
};

/// gamma = 1 / median of squared distances between rows (row after row, at most `limit` of them, evenly spaced).
/// 1 where that median is 0. Error(bad_input) for fewer than two rows.
double median_gamma(std::span<const double> numbers, size_t dimensions, size_t limit = 1000);

/// Unbiased MMD^2 of two means of the same features; each needs two rows.
double mmd2(const FeatureMean& a, const FeatureMean& b);
/// With probability 1 - delta over the features' seed, |mmd2(a, b) - that of the exact kernel| is at most this:
/// Hoeffding's inequality over the F independent frequencies, each of whose terms lies in an interval of length
/// n / (n - 1) + m / (m - 1) + 2.
double mmd2_error_bound(int64_t n, int64_t m, size_t frequencies, double delta);

}  // namespace retort
