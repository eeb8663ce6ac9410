// Energy distance (Szekely and Rizzo 2004), the square root of 2 times the integral of the squared difference of the
// distribution functions; p by permutation.
#include <cmath>

#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

struct Energy {
  double squared = 0;  ///< D^2
  double between = 0;  ///< E|X - Y|
};

static Energy energy(const Pooled& pooled) {
  double p = 0, q = 0;
  Energy energy;
  for (size_t i = 0; i + 1 < pooled.distinct.size(); ++i) {
    p += static_cast<double>(pooled.reference[i]) / static_cast<double>(pooled.reference_total);
    q += static_cast<double>(pooled.current[i]) / static_cast<double>(pooled.current_total);
    const double width = pooled.distinct[i + 1] - pooled.distinct[i];
    energy.squared += 2 * (p - q) * (p - q) * width;
    energy.between += (p * (1 - q) + q * (1 - p)) * width;
  }
  return energy;
}

static Detection of_values(const Values& reference, const Values& current, const DetectorOptions& options) {
  const Pooled pooled = pool(reference, current);
  const Energy observed = energy(pooled);
  Detection detection;
  detection.statistic = std::sqrt(observed.squared);
  detection.effect = observed.between > 0 ? std::sqrt(observed.squared / (2 * observed.between)) : 0;
  if (options.p_value) {
    detection.p_value = permutation_p_value(pooled, detection.statistic, options,
                                            [](const Pooled& split) { return std::sqrt(energy(split).squared); });
  }
  return detection;
}

extern const DetectorKind detector_energy;
const DetectorKind detector_energy{
    .summary = "energy distance, by permutation",
    .effect = "square root of D^2 / (2 E|X - Y|), between 0 and 1; a normal's shift by d deviations gives about d / 2",
    .limit = 0.1,
    .order = 0.5,
    .of_values = of_values};

}  // namespace retort
