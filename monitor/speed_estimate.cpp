#include "monitor/speed_estimate.h"

#include <cmath>

namespace retort {

Rate mean_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (double value : values) mean += value / n;
  for (double value : values) squares += (value - mean) * (value - mean);
  return {mean, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

Rate rate_of(std::span<const double> seconds, double tokens) {
  const Rate mean = mean_of(seconds);
  return {tokens / mean.value, tokens / (mean.value * mean.value) * mean.standard_error};
}

}  // namespace retort
