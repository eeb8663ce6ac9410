// What a run will do and need, said before it starts.
#pragma once

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "data/loader.h"
#include "models/causal_lm.h"
#include "trainer/options.h"

namespace retort {

/// Bytes at the moment when a run holds most.
struct MemoryPlan {
  int64_t program = 0;      ///< the program, its libraries and their buffers
  int64_t weights = 0;      ///< frozen; dense ones with what is in memory of the file that they came from
  int64_t adapters = 0;     ///< parameters, gradients, the optimizer's state (not a paged one's on a GPU)
  int64_t activations = 0;  ///< what the worst micro-batch keeps for backward
  int64_t workspace = 0;    ///< what exists for a moment: a chunk's logits, or one block's gradients
  int64_t total() const { return program + weights + adapters + activations + workspace; }
};

struct TrainPlan {
  int64_t steps = 0, warmup_steps = 0;
  double epochs = 0;
  int64_t tokens = 0, trained_tokens = 0;  ///< of the whole run
  int64_t largest_micro_batch = 0;         ///< tokens
  int64_t validations = 0;
  MemoryPlan memory = {};
  double tokens_per_second = 0, seconds = 0;  ///< estimates; seconds include validation
  Json to_json() const;
};

/// Walks through the run's batches (their sizes only) in the order in which train() will see them, so steps and tokens
/// are exact unless the run stops early. Memory is counted from the decoder's own bookkeeping, for the process on a
/// CPU, for the device elsewhere. Time is floating-point operations over this machine's speed, which is measured for a
/// moment on a CPU; elsewhere seconds stay 0. `model` has its adapters attached.
TrainPlan plan_training(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                        const TrainOptions& options, uint64_t seed);

/// The plan's memory alone, without measuring anything.
MemoryPlan plan_memory(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                       const TrainOptions& options, uint64_t seed);

}  // namespace retort
