#include "monitor/permutation.h"

#include <algorithm>
#include <boost/math/special_functions/gamma.hpp>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"

namespace retort {

Pooled pool(const Values& reference, const Values& current) {
  Pooled pooled;
  pooled.reference_total = reference.total;
  pooled.current_total = current.total;
  size_t i = 0, j = 0;
  while (i < reference.distinct.size() || j < current.distinct.size()) {
    const bool left =
        j == current.distinct.size() || (i < reference.distinct.size() && reference.distinct[i] <= current.distinct[j]);
    const double value = left ? reference.distinct[i] : current.distinct[j];
    pooled.distinct.push_back(value);
    pooled.reference.push_back(left ? reference.counts[i++] : 0);
    const bool both = j < current.distinct.size() && current.distinct[j] == value;
    pooled.current.push_back(both ? current.counts[j++] : 0);
  }
  return pooled;
}

Pooled pool(std::span<const int64_t> reference, std::span<const int64_t> current) {
  Pooled pooled;
  for (size_t i = 0; i < reference.size(); ++i) {
    if (reference[i] + current[i] == 0) continue;
    pooled.reference.push_back(reference[i]);
    pooled.current.push_back(current[i]);
    pooled.reference_total += reference[i];
    pooled.current_total += current[i];
  }
  return pooled;
}

Values side(const Pooled& pooled, const std::vector<int64_t>& counts) {
  Values values;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    values.distinct.push_back(pooled.distinct[i]);
    values.counts.push_back(counts[i]);
    values.total += counts[i];
  }
  return values;
}

double resampled_p_value(double observed, const DetectorOptions& options, const std::function<double(int64_t)>& draw) {
  const double threshold = observed - 1e-12 * std::abs(observed);
  const int64_t enough = (options.permutations + 20) / 20;  // exceedances from which p > 0.05 is certain
  int64_t drawn = 0, exceeding = 0;
  while (drawn < options.permutations && exceeding < enough) exceeding += draw(drawn++) >= threshold;
  return static_cast<double>(1 + exceeding) / static_cast<double>(drawn + 1);
}

double permutation_p_value(const Pooled& pooled, double observed, const DetectorOptions& options,
                           const std::function<double(const Pooled&)>& statistic) {
  // The smaller sample is drawn out of all rows; the other gets the rest.
  const bool draw_current = pooled.current_total <= pooled.reference_total;
  const int64_t size = std::min(pooled.current_total, pooled.reference_total);
  constexpr int64_t kMost = 20'000'000;
  if (pooled.current_total + pooled.reference_total > kMost) {
    fail(Exit::bad_input, "a permutation test of {} rows; the most is {}: give fewer rows, or calibrate a null",
         pooled.current_total + pooled.reference_total, kMost);
  }
  std::vector<uint32_t> rows;  // each row's place in the support
  rows.reserve(static_cast<size_t>(pooled.reference_total + pooled.current_total));
  for (size_t i = 0; i < pooled.reference.size(); ++i)
    rows.insert(rows.end(), static_cast<size_t>(pooled.reference[i] + pooled.current[i]), static_cast<uint32_t>(i));
  Rng rng(static_cast<uint64_t>(options.seed));
  Pooled split = pooled;
  return resampled_p_value(observed, options, [&](int64_t) {
    std::vector<int64_t>& drawn = draw_current ? split.current : split.reference;
    std::vector<int64_t>& rest = draw_current ? split.reference : split.current;
    std::fill(drawn.begin(), drawn.end(), 0);
    for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
      std::swap(rows[i], rows[i + rng.below(rows.size() - i)]);
      ++drawn[rows[i]];
    }
    for (size_t i = 0; i < drawn.size(); ++i) rest[i] = pooled.reference[i] + pooled.current[i] - drawn[i];
    return statistic(split);
  });
}

double chi_squared_tail(double x, double degrees) {
  constexpr double kSmallest = 1e-300;  // a p-value is never 0
  return x > 0 && degrees > 0 ? std::max(kSmallest, boost::math::gamma_q(degrees / 2, x / 2)) : 1.0;
}

double chi_squared_limit(double alpha, double degrees) { return 2 * boost::math::gamma_q_inv(degrees / 2, alpha); }

}  // namespace retort
