// Simulated outcomes of two models.
#pragma once

#include <cmath>
#include <vector>

#include "core/rng.h"
#include "registry/paired.h"

namespace retort {

/// Rows of which each is a gain or a loss with these probabilities.
inline Discordant drawn_pairs(size_t rows, double gain, double loss, uint64_t seed, uint64_t trial) {
  Rng rng(seed, trial);
  Discordant pairs{.rows = static_cast<int64_t>(rows)};
  for (size_t i = 0; i < rows; ++i) {
    const double u = rng.uniform();
    pairs.gains += u < gain;
    pairs.losses += u >= gain && u < gain + loss;
  }
  return pairs;
}

/// Normal differences (Box and Muller).
inline std::vector<double> drawn_differences(size_t rows, double mean, double deviation, uint64_t seed,
                                             uint64_t trial) {
  Rng rng(seed, trial);
  std::vector<double> sample(rows);
  for (double& x : sample) {
    const double radius = std::sqrt(-2 * std::log(1 - rng.uniform()));
    x = mean + deviation * radius * std::cos(2 * M_PI * rng.uniform());
  }
  return sample;
}

/// Of mean 0 and a long tail of losses: exponentials of normal numbers, turned round.
inline std::vector<double> drawn_skewed(size_t rows, double mean, uint64_t seed, uint64_t trial) {
  std::vector<double> sample = drawn_differences(rows, 0, 1, seed, trial);
  for (double& x : sample) x = mean - (std::exp(x) - std::exp(0.5));
  return sample;
}

/// All alike, but for a few that lose 1.
inline std::vector<double> drawn_rare_losses(size_t rows, double loss, uint64_t seed, uint64_t trial) {
  Rng rng(seed, trial);
  std::vector<double> sample(rows);
  for (double& x : sample) x = rng.uniform() < loss ? -1 : 0;
  return sample;
}

}  // namespace retort
