// Population stability index, sum (p - q) ln(p / q), over bins or categories.
//
// `retort`: ten quantile bins of the reference. PSI / (1/n + 1/m) follows chi^2 with bins - 1 degrees of freedom where
// nothing has changed (Yurdakul and Naranjo 2020), so a fixed "0.1" means nothing without the sizes: the p-value comes
// from that law, or from the exact one where a sample is small.
#include <cmath>
#include <limits>

#include "monitor/binning.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

/// Shares below a floor count as the floor; what neither sample has is no bin.
static double psi(const Shares& shares, double floor_p, double floor_q) {
  double sum = 0;
  for (size_t i = 0; i < shares.p.size(); ++i) {
    if (shares.p[i] == 0 && shares.q[i] == 0) continue;
    const double p = std::max(shares.p[i], floor_p), q = std::max(shares.q[i], floor_q);
    sum += (p - q) * std::log(p / q);
  }
  return sum;
}

/// An empty bin counts as half a row.
static double psi_of_counts(std::span<const int64_t> reference, std::span<const int64_t> current) {
  return psi(shares(reference, current), 0.5 / static_cast<double>(total_of(reference)),
             0.5 / static_cast<double>(total_of(current)));
}

using PValue = decltype(binned_p_value);

static Detection detect(std::span<const int64_t> reference, std::span<const int64_t> current,
                        const DetectorOptions& options, PValue* p_value) {
  const double factor = size_factor(reference, current), degrees = degrees_of_freedom(reference, current);
  Detection detection;
  detection.statistic = psi_of_counts(reference, current);
  detection.effect = std::max(0.0, detection.statistic - options.chance.value_or(degrees * factor));
  detection.details["degrees_of_freedom"] = degrees;
  if (degrees > 0) detection.details["threshold_0.05"] = factor * chi_squared_limit(0.05, degrees);
  if (options.p_value) {
    detection.p_value = p_value(reference, current, detection.statistic, options, psi_of_counts,
                                [&] { return chi_squared_tail(detection.statistic / factor, degrees); });
  }
  return detection;
}

/// Evidently fills zeros with 0.0001, or with a millionth of the smallest share where that is no larger.
static double evidently_floor(std::span<const double> shares) {
  double smallest = 1;
  for (double share : shares)
    if (share > 0) smallest = std::min(smallest, share);
  return smallest <= 1e-4 ? smallest / 1e6 : 1e-4;
}

/// Zeros are replaced, small shares are not.
static double with_zeros_as(const Shares& shares, double zero_p, double zero_q) {
  double sum = 0;
  for (size_t i = 0; i < shares.p.size(); ++i) {
    const double p = shares.p[i] == 0 ? zero_p : shares.p[i], q = shares.q[i] == 0 ? zero_q : shares.q[i];
    sum += (p - q) * std::log(p / q);
  }
  return sum;
}

static double evidently(const Shares& shares) {
  return with_zeros_as(shares, evidently_floor(shares.p), evidently_floor(shares.q));
}

static double evidently_of_values(const Pooled& pooled) { return evidently(evidently_shares(pooled)); }

/// Frouros: ten equal widths over both samples, zeros as the smallest normal double.
static double frouros_of_values(const Pooled& pooled) {
  const auto edges = equal_width_edges(pooled.distinct.front(), pooled.distinct.back(), 10);
  constexpr double kSmallest = std::numeric_limits<double>::min();
  return with_zeros_as(
      shares(histogram(side(pooled, pooled.reference), edges), histogram(side(pooled, pooled.current), edges)),
      kSmallest, kSmallest);
}

/// The usual recipe: deciles of the reference, interpolated; zeros as 1e-6 there and half a row here.
static double deciles_of_values(const Pooled& pooled) {
  const Values reference = side(pooled, pooled.reference), current = side(pooled, pooled.current);
  std::vector<double> edges;
  for (int i = 1; i < 10; ++i) edges.push_back(quantile(reference, i / 10.0));
  return psi(shares(bin_counts(reference, edges), bin_counts(current, edges)), 1e-6,
             0.5 / static_cast<double>(current.total));
}

static Detection of_values(const Values& reference, const Values& current, const DetectorOptions& options) {
  if (options.profile == "retort") {
    const std::vector<double> edges = quantile_edges(reference, 10);
    return detect(bin_counts(reference, edges), bin_counts(current, edges), options, binned_p_value);
  }
  const auto statistic = options.profile == "evidently" ? evidently_of_values
                         : options.profile == "frouros" ? frouros_of_values
                                                        : deciles_of_values;
  const Pooled pooled = pool(reference, current);
  Detection detection;
  detection.statistic = detection.effect = statistic(pooled);
  detection.limit = 0.1;
  if (options.p_value) detection.p_value = permutation_p_value(pooled, detection.statistic, options, statistic);
  return detection;
}

static Detection of_counts(std::span<const int64_t> reference, std::span<const int64_t> current,
                           const DetectorOptions& options) {
  if (options.profile == "retort") return detect(reference, current, options, category_p_value);
  const Pooled pooled = pool(reference, current);
  const bool evidently_rules = options.profile == "evidently";
  const auto statistic = [&](const Pooled& split) {
    constexpr double kSmallest = std::numeric_limits<double>::min();
    const Shares both = shares(split.reference, split.current);
    return evidently_rules ? evidently(both) : with_zeros_as(both, kSmallest, kSmallest);
  };
  Detection detection;
  detection.statistic = detection.effect = statistic(pooled);
  detection.limit = 0.1;
  if (options.p_value) detection.p_value = permutation_p_value(pooled, detection.statistic, options, statistic);
  return detection;
}

extern const DetectorKind detector_psi;
const DetectorKind detector_psi{
    .summary = "population stability index over ten quantile bins of the baseline, or over categories",
    .effect = "PSI less what chance adds, (bins - 1)(1/n + 1/m); a normal's shift by d deviations gives about d^2",
    .limit = 0.04,
    .order = 1,
    .profiles = {"retort", "evidently", "frouros", "deciles"},
    .of_values = of_values,
    .of_counts = of_counts};

}  // namespace retort
