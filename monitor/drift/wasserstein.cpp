// First Wasserstein distance: the area between the two distribution functions, in the signal's own unit; p by
// permutation.
#include <cmath>

#include "monitor/binning.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

static double wasserstein(const Pooled& pooled) {
  double p = 0, q = 0, area = 0;
  for (size_t i = 0; i + 1 < pooled.distinct.size(); ++i) {
    p += static_cast<double>(pooled.reference[i]);
    q += static_cast<double>(pooled.current[i]);
    const double difference =
        p / static_cast<double>(pooled.reference_total) - q / static_cast<double>(pooled.current_total);
    area += std::abs(difference) * (pooled.distinct[i + 1] - pooled.distinct[i]);
  }
  return area;
}

static Detection of_values(const Values& reference, const Values& current, const DetectorOptions& options) {
  const Pooled pooled = pool(reference, current);
  Detection detection;
  detection.statistic = wasserstein(pooled);
  double deviation = moments(reference).deviation;
  if (options.profile == "evidently") {
    deviation = std::max(deviation, 0.001);
    detection.limit = 0.1;
  } else if (deviation == 0) {  // a constant baseline: any change is measured by the spread of both
    Values both{pooled.distinct, pooled.reference, reference.total + current.total};
    for (size_t i = 0; i < both.counts.size(); ++i) both.counts[i] += pooled.current[i];
    deviation = moments(both).deviation;
  }
  detection.effect = deviation > 0 ? detection.statistic / deviation : 0;
  if (options.p_value) detection.p_value = permutation_p_value(pooled, detection.statistic, options, wasserstein);
  return detection;
}

extern const DetectorKind detector_wasserstein;
const DetectorKind detector_wasserstein{
    .summary = "first Wasserstein distance, by permutation",
    .effect = "the distance over the baseline's standard deviation; a shift by d deviations gives d",
    .limit = 0.2,
    .order = 0.5,
    .profiles = {"retort", "evidently"},
    .of_values = of_values};

}  // namespace retort
