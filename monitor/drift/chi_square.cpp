// Pearson's chi^2 of the 2 x k contingency table: both samples vary, where a test against "expected" counts taken from
// the reference alarms too often.
#include <cmath>

#include "monitor/binning.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

static double chi_square(std::span<const int64_t> reference, std::span<const int64_t> current) {
  const auto n = static_cast<double>(total_of(reference)), m = static_cast<double>(total_of(current));
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const auto a = static_cast<double>(reference[i]), b = static_cast<double>(current[i]);
    if (a + b == 0) continue;
    const double difference = a * m - b * n;  // of a from its expectation, times n + m
    sum += difference * difference / (n * m * (a + b));
  }
  return sum;
}

static Detection of_counts(std::span<const int64_t> reference, std::span<const int64_t> current,
                           const DetectorOptions& options) {
  const double degrees = degrees_of_freedom(reference, current), factor = size_factor(reference, current);
  Detection detection;
  detection.statistic = chi_square(reference, current);
  detection.effect = std::sqrt(std::max(0.0, detection.statistic - options.chance.value_or(degrees)) * factor);
  detection.details["degrees_of_freedom"] = degrees;
  if (!options.p_value) return detection;
  // The law needs about five expected rows a cell (Cochran 1954); below, the exact one by permutation.
  const auto n = static_cast<double>(total_of(reference)), m = static_cast<double>(total_of(current));
  double smallest = INFINITY;
  for (size_t i = 0; i < reference.size(); ++i) {
    const auto both = static_cast<double>(reference[i] + current[i]);
    if (both > 0) smallest = std::min(smallest, both * std::min(n, m) / (n + m));
  }
  detection.details["smallest_expected"] = smallest;
  detection.p_value = chi_squared_tail(detection.statistic, degrees);
  if (smallest < 5 && degrees > 0) {
    detection.p_value =
        permutation_p_value(pool(reference, current), detection.statistic, options,
                            [](const Pooled& split) { return chi_square(split.reference, split.current); });
  }
  return detection;
}

extern const DetectorKind detector_chi_square;
const DetectorKind detector_chi_square{
    .summary = "chi^2 of the contingency table of categories",
    .effect =
        "square root of (chi^2 - degrees of freedom)(1/n + 1/m); categories of a normal that shifts by d "
        "deviations give about d",
    .limit = 0.2,
    .order = 0,
    .of_counts = of_counts};

}  // namespace retort
