// Permutation tests: how often a statistic is at least as large when the two samples' rows change places by chance.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "monitor/detector.h"

namespace retort {

/// Two samples on one support: each distinct value (or category) and how often either sample has it.
struct Pooled {
  std::vector<double> distinct;  ///< empty for categories
  std::vector<int64_t> reference, current;
  int64_t reference_total = 0, current_total = 0;
};
Pooled pool(const Values& reference, const Values& current);
/// One of the two again; `counts` is pooled.reference or pooled.current.
Values side(const Pooled& pooled, const std::vector<int64_t>& counts);
/// Categories that occur in neither are left out.
Pooled pool(std::span<const int64_t> reference, std::span<const int64_t> current);

/// (1 + k) / (drawn + 1), where k of the values that `draw` gave were at least `observed` (to 1e-12 of it: the same
/// split may be summed in another order). Stops once p cannot fall to 0.05 any more (Besag and Clifford 1991), which
/// leaves smaller p-values as they are; options.permutations is the most that is drawn. `draw` gets its number.
double resampled_p_value(double observed, const DetectorOptions& options, const std::function<double(int64_t)>& draw);

/// The same over random splits of the pooled rows.
double permutation_p_value(const Pooled& pooled, double observed, const DetectorOptions& options,
                           const std::function<double(const Pooled&)>& statistic);

/// P(chi^2 with `degrees` of freedom >= x), never 0, and the x that is exceeded with probability alpha.
double chi_squared_tail(double x, double degrees);
double chi_squared_limit(double alpha, double degrees);

}  // namespace retort
