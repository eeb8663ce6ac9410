// Jensen-Shannon distance, the square root of the mean of both samples' divergences from their mixture.
//
// `retort`: nats, over ten quantile bins of the reference or over categories. 8 JSD / (1/n + 1/m) follows chi^2 with
// bins - 1 degrees of freedom where nothing has changed: to second order 8 JSD is sum (p - q)^2 / r.
#include <cmath>

#include "monitor/binning.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

/// In nats, of shares that may add up to less than one: each side is brought to one, as scipy does.
static double divergence(const Shares& shares) {
  double p_sum = 0, q_sum = 0, sum = 0;
  for (double p : shares.p) p_sum += p;
  for (double q : shares.q) q_sum += q;
  for (size_t i = 0; i < shares.p.size(); ++i) {
    const double p = shares.p[i] / p_sum, q = shares.q[i] / q_sum, middle = (p + q) / 2;
    if (p > 0) sum += p * std::log(p / middle);
    if (q > 0) sum += q * std::log(q / middle);
  }
  return std::max(0.0, sum / 2);
}

static double distance(const Shares& shares) { return std::sqrt(divergence(shares)); }

static double distance_of_counts(std::span<const int64_t> reference, std::span<const int64_t> current) {
  return distance(shares(reference, current));
}

using PValue = decltype(binned_p_value);

static Detection detect(std::span<const int64_t> reference, std::span<const int64_t> current,
                        const DetectorOptions& options, PValue* p_value) {
  const double factor = size_factor(reference, current), degrees = degrees_of_freedom(reference, current);
  Detection detection;
  detection.statistic = distance_of_counts(reference, current);
  const double squared = detection.statistic * detection.statistic;
  const double chance = options.chance ? *options.chance * *options.chance : degrees * factor / 8;
  detection.effect = std::sqrt(std::max(0.0, squared - chance));
  if (options.p_value) {
    detection.p_value = p_value(reference, current, detection.statistic, options, distance_of_counts,
                                [&] { return chi_squared_tail(8 * squared / factor, degrees); });
  }
  return detection;
}

static double evidently_of_values(const Pooled& pooled) { return distance(evidently_shares(pooled)); }

/// NannyML: Doane's bins on the reference, and one for what lies outside; base 2.
static double nannyml_of_values(const Pooled& pooled) {
  const Values reference = side(pooled, pooled.reference), current = side(pooled, pooled.current);
  const auto edges = equal_width_edges(reference.distinct.front(), reference.distinct.back(), doane_bins(reference));
  std::vector<int64_t> p = histogram(reference, edges), q = histogram(current, edges);
  int64_t outside = current.total;
  for (int64_t count : q) outside -= count;
  p.push_back(0);
  q.push_back(outside);
  return distance(shares(p, q)) / std::sqrt(std::log(2.0));
}

/// Shares of the cells between `points` of the distribution that is even within each bin of a histogram.
static std::vector<double> cells(const Values& sample, std::span<const double> points) {
  const auto edges = equal_width_edges(sample.distinct.front(), sample.distinct.back(), auto_bins(sample));
  const std::vector<int64_t> counts = histogram(sample, edges);
  const auto below = [&](double x) {
    double sum = 0;
    for (size_t i = 0; i < counts.size() && x > edges[i]; ++i) {
      const double part = std::min(1.0, (x - edges[i]) / (edges[i + 1] - edges[i]));
      sum += part * static_cast<double>(counts[i]) / static_cast<double>(sample.total);
    }
    return sum;
  };
  std::vector<double> shares;
  for (size_t i = 1; i < points.size(); ++i) shares.push_back(below(points[i]) - below(points[i - 1]));
  return shares;
}

/// Frouros: both smoothed by a histogram with numpy's "auto" bins, over nine cells of the common range; nats.
static double frouros_of_values(const Pooled& pooled) {
  const auto points = equal_width_edges(pooled.distinct.front(), pooled.distinct.back(), 9);
  return distance({cells(side(pooled, pooled.reference), points), cells(side(pooled, pooled.current), points)});
}

static Detection of_values(const Values& reference, const Values& current, const DetectorOptions& options) {
  if (options.profile == "retort") {
    const std::vector<double> edges = quantile_edges(reference, 10);
    return detect(bin_counts(reference, edges), bin_counts(current, edges), options, binned_p_value);
  }
  const auto statistic = options.profile == "evidently" ? evidently_of_values
                         : options.profile == "nannyml" ? nannyml_of_values
                                                        : frouros_of_values;
  const Pooled pooled = pool(reference, current);
  Detection detection;
  detection.statistic = detection.effect = statistic(pooled);
  detection.limit = 0.1;
  if (options.p_value) detection.p_value = permutation_p_value(pooled, detection.statistic, options, statistic);
  return detection;
}

/// The peers count categories alike; NannyML takes the logarithm to base 2.
static Detection of_counts(std::span<const int64_t> reference, std::span<const int64_t> current,
                           const DetectorOptions& options) {
  Detection detection = detect(reference, current, options, category_p_value);
  if (options.profile == "retort") return detection;
  if (options.profile == "nannyml") detection.statistic /= std::sqrt(std::log(2.0));
  detection.effect = detection.statistic;
  detection.limit = 0.1;
  return detection;
}

extern const DetectorKind detector_jensen_shannon;
const DetectorKind detector_jensen_shannon{
    .summary = "Jensen-Shannon distance in nats over ten quantile bins of the baseline, or over categories",
    .effect = "the distance less what chance adds to its square; a normal's shift by d deviations gives about d / 2.8",
    .limit = 0.07,
    .order = 0.5,
    .profiles = {"retort", "evidently", "nannyml", "frouros"},
    .of_values = of_values,
    .of_counts = of_counts};

}  // namespace retort
