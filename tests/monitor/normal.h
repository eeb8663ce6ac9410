// Normal numbers that are the same with every standard library.
#pragma once

#include <cmath>
#include <numbers>
#include <vector>

#include "core/rng.h"

namespace retort {

inline double normal(Rng& rng) {
  const double radius = std::sqrt(-2 * std::log1p(-rng.uniform()));
  return radius * std::cos(2 * std::numbers::pi * rng.uniform());
}

inline std::vector<double> normals(Rng& rng, size_t count) {
  std::vector<double> numbers(count);
  for (double& number : numbers) number = normal(rng);
  return numbers;
}

inline double normal_cdf(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }

/// By bisection.
inline double normal_quantile(double probability) {
  double low = -10, high = 10;
  for (int i = 0; i < 60; ++i) (normal_cdf((low + high) / 2) < probability ? low : high) = (low + high) / 2;
  return low;
}

}  // namespace retort
