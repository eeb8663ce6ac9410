// Statistics of two models on the same rows.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace retort {

/// Rows on which the models differ: the challenger alone is right, or the champion alone; and all rows.
struct Discordant {
  int64_t gains = 0, losses = 0, rows = 0;
  double difference() const { return static_cast<double>(gains - losses) / static_cast<double>(rows); }
};
/// Of outcomes that are 0 or 1.
Discordant discordant_of(std::span<const double> champion, std::span<const double> challenger);

/// Two-sided exact p-value of "gains and losses are equally likely" (McNemar 1947; binomial).
double mcnemar_p_value(const Discordant& pairs);

/// Score statistic of "the difference in probability is delta" with the nuisance parameter at its restricted maximum
/// likelihood; large where it is larger (Tango 1998, Equivalence test and confidence interval for the difference in
/// proportions for the paired-sample design). -1 < delta < 1.
double paired_score(const Discordant& pairs, double delta);

/// Exact unconditional p-value of "the difference is at most delta": the largest probability, over every share of
/// discordant pairs, of a score at least as large (Hsueh, Liu and Chen 2001, Unconditional exact tests for equivalence
/// or noninferiority for paired binary endpoints). The score rises in gains and falls in losses, so that the largest is
/// at a difference of exactly delta (Berger and Sidik 2003).
double exact_above_p_value(const Discordant& pairs, double delta);
/// The same for "at least delta", against a smaller one.
double exact_below_p_value(const Discordant& pairs, double delta);

struct ConfidenceBounds {
  double low = 0, high = 0;
};
/// Bounds of the difference, each of confidence 1 - alpha, by inverting the exact unconditional test.
ConfidenceBounds exact_difference_bounds(const Discordant& pairs, double alpha);

/// Bounds of a probability, each of confidence 1 - alpha (Clopper and Pearson 1934).
ConfidenceBounds clopper_pearson(int64_t successes, int64_t rows, double alpha);

/// The distribution of a mean of paired differences under resampling of the rows, with BCa's corrections (Efron 1987).
class PairedBootstrap {
 public:
  PairedBootstrap(std::span<const double> differences, int64_t resamples, uint64_t seed);
  /// One-sided p-values of "the mean is at most value" and of "at least value".
  double above_p_value(double value) const;
  double below_p_value(double value) const;
  /// Each of confidence 1 - alpha.
  ConfidenceBounds bounds(double alpha) const;
  double mean() const { return mean_; }
  double deviation() const { return deviation_; }  ///< of one difference

 private:
  double mean_ = 0, deviation_ = 0, bias_ = 0, acceleration_ = 0;
  std::vector<double> means_;  // sorted
};

/// The distribution of a mean of values that lie between `least` and `greatest`, when one more row might have been the
/// worst (for bounds from below) or the best (from above): the mean under random weights of the rows and that one.
/// Gaffke's bounds (2005, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
/// variable), of which no distribution is known that they fail for, and none is proven to (Learned-Miller and Thomas
/// 2020, A new confidence interval for the mean of a bounded random variable). Of values at the two ends alone they are
/// Clopper and Pearson's. Error(bad_input) for no values, or one beyond the ends.
class BoundedMean {
 public:
  BoundedMean(std::span<const double> values, double least, double greatest, int64_t draws, uint64_t seed);
  /// As PairedBootstrap's.
  double above_p_value(double value) const;
  double below_p_value(double value) const;
  ConfidenceBounds bounds(double alpha) const;

 private:
  std::vector<double> low_, high_;  // sorted
};

/// Adjusted p-values in the order given (Holm 1979).
std::vector<double> holm(std::span<const double> p_values);

/// What the power of a one-sided test against "at most -margin" follows from (Liu, Hsueh, Hsieh and Chen 2002, Tests
/// for equivalence or non-inferiority for paired binary data): the true difference, and the variance of one pair's
/// difference as the test takes it and as it is; `span`: how far the row of BoundedMean lies from the mean.
struct PowerTerms {
  double margin = 0, difference = 0, null_variance = 0, variance = 0, span = 0;
};
/// Of the score test, when a share `gains` and `losses` of all pairs differ.
PowerTerms power_terms(double gains, double losses, double margin);
/// Nothing unless difference > -margin.
std::optional<int64_t> rows_for_power(const PowerTerms& terms, double alpha, double power);
double power_of_rows(int64_t rows, const PowerTerms& terms, double alpha);

}  // namespace retort
