#include "trainer/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace retort {

double Schedule::factor(int64_t step) const {
  auto part = [](int64_t done, int64_t of) { return double(done) / double(std::max<int64_t>(1, of)); };
  auto half_cosine = [](double progress) { return 0.5 * (1 + std::cos(std::numbers::pi * progress)); };
  auto raised = [this](double factor) { return std::max(0.0, factor * (1 - min_lr_ratio) + min_lr_ratio); };
  const bool stable = type == "warmup_stable_decay";
  // Only warmup_stable_decay starts its warm-up at the lowest rate instead of 0, in transformers as here.
  if (step < warmup_steps) return stable ? raised(part(step, warmup_steps)) : part(step, warmup_steps);
  if (type == "constant") return 1;
  if (type == "linear") return raised(std::max(0.0, part(steps - step, steps - warmup_steps)));
  if (type == "cosine") return raised(half_cosine(part(step - warmup_steps, steps - warmup_steps)));
  if (!stable) fail(Exit::usage, "train.lr_scheduler_type: \"{}\" is not a schedule", type);
  const int64_t fall = steps - decay_steps;
  if (step < fall) return 1;
  return step < steps ? raised(half_cosine(part(step - fall, decay_steps))) : min_lr_ratio;
}

Schedule make_schedule(const TrainOptions& options, int64_t steps) {
  auto ratio = [steps](double r) { return static_cast<int64_t>(std::ceil(r * double(steps))); };
  Schedule schedule{.type = options.lr_scheduler_type, .learning_rate = options.learning_rate, .steps = steps};
  schedule.warmup_steps = options.warmup_steps.value_or(ratio(options.warmup_ratio));
  schedule.min_lr_ratio = options.min_lr_ratio;
  if (schedule.warmup_steps > steps)
    fail(Exit::usage, "train.warmup_steps: {} is more than the run's {} steps", schedule.warmup_steps, steps);
  if (schedule.type == "warmup_stable_decay")
    schedule.decay_steps = std::min(ratio(options.decay_ratio), steps - schedule.warmup_steps);
  return schedule;
}

}  // namespace retort
