// train.fit: the fastest way to train the same batches in a given memory.
#pragma once

#include <cstdint>
#include <string>

#include "core/json.h"
#include "data/loader.h"
#include "models/causal_lm.h"
#include "trainer/options.h"
#include "trainer/plan.h"

namespace retort {

struct Fit {
  TrainOptions options;     ///< with micro_batch_size, gradient_accumulation_steps and checkpointing chosen
  MemoryPlan memory = {};   ///< of them
  std::string reason = {};  ///< what was chosen and why, for people

  Json to_json() const;
  /// The choice that to_json wrote down, in `options`.
  static Fit from_json(const Json& object, const TrainOptions& options, const std::string& where);
};

/// Of all ways to split the batch of options.windows_per_step() windows and to run no block, each n-th block or all
/// blocks again, the one that costs the least time among those whose predicted peak and a tenth more is at most
/// options.fit->memory. Time is counted, not measured, so that the same recipe always trains the same way. `model` has
/// its adapters attached. Error(usage) with what the smallest way needs, part by part, when nothing fits.
Fit fit_training(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                 const TrainOptions& options, uint64_t seed);

}  // namespace retort
