// How fast a file is served, with standard errors over runs: for what it takes and what it costs.
#pragma once

#include <span>

#include "models/served.h"

namespace retort {

/// Tokens a second over several runs. The standard error is of the mean time, carried over.
struct Rate {
  double value = 0, standard_error = 0;
};
/// `seconds` of runs of `tokens` tokens each.
Rate rate_of(std::span<const double> seconds, double tokens);
/// The mean of values with its standard error, s / sqrt(n).
Rate mean_of(std::span<const double> values);

}  // namespace retort
