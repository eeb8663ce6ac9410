// What the simulations of detectors and of the alarm share.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace retort {

constexpr double kAlpha = 0.05;

/// body(trial) for trials 1, 2, ...; each draws from a random stream of its own, so that the order does not matter.
inline void for_trials(int trials, int threads, const std::function<void(uint64_t)>& body) {
  std::atomic<int> next = 0;
  std::vector<std::jthread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      for (int trial; (trial = next++) < trials;) body(static_cast<uint64_t>(trial) + 1);
    });
  }
}

}  // namespace retort
