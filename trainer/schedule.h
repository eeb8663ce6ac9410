// The learning rate over the steps of a run.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/options.h"

namespace retort {

/// A schedule with its step counts resolved. Same values as transformers' get_scheduler: constant_with_warmup, linear,
/// cosine (cosine_with_min_lr) and warmup_stable_decay (linear warm-up, cosine decay).
struct Schedule {
  std::string type;
  double learning_rate = 0;
  int64_t steps = 0, warmup_steps = 0, decay_steps = 0;
  double min_lr_ratio = 0;

  /// Factor in [0, 1] for the update after `step` updates were made; warm-up starts at 0, so the first update of a run
  /// with warm-up changes nothing.
  double factor(int64_t step) const;
  double rate(int64_t step) const { return learning_rate * factor(step); }
};

/// `steps`: updates of the whole run. Ratios are rounded up to steps.
Schedule make_schedule(const TrainOptions& options, int64_t steps);

}  // namespace retort
