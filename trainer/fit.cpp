#include "trainer/fit.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/progress.h"

namespace retort {
namespace {

// What a micro-batch costs beside its tokens, as so many tokens' time: reading or dequantizing every weight once more,
// and on a GPU filling it. On two cores 32 to 512 tokens of a 135M model fit 30 to 40.
constexpr double kMicroBatchTokens = 32, kMicroBatchTokensOnGpu = 256;
// Forward is a third of a step, so that much is added when every block runs again.
constexpr double kForward = 1.0 / 3;

// The plan has been between 0.93 and 1.2 of what was measured.
constexpr double kReserve = 1.1;

std::string size_of(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

/// "micro_batch_size 4 × gradient_accumulation_steps 2 without checkpointing"
std::string shown(const TrainOptions& o) {
  const std::string blocks = !o.gradient_checkpointing ? "without checkpointing"
                             : o.gradient_checkpointing_every == 1
                                 ? "with checkpointing"
                                 : fmt::format("checkpointing 1 block of {}", o.gradient_checkpointing_every);
  return fmt::format("micro_batch_size {} × gradient_accumulation_steps {} {}", o.micro_batch_size,
                     o.gradient_accumulation_steps, blocks);
}

struct Way {
  TrainOptions options;
  double cost = 0;  ///< time of a batch, in tokens without checkpointing
};

/// Every way, the fastest first; of equal ones the one with the larger micro-batch.
std::vector<Way> ways(const CausalLM& model, const PackedDataset& data, const TrainOptions& options) {
  double tokens = 0;  // of a batch
  for (int64_t w = 0; w < data.windows(); ++w) tokens += static_cast<double>(data.window_tokens(w));
  const int64_t batch = options.windows_per_step();
  tokens *= static_cast<double>(batch) / static_cast<double>(data.windows());
  const double each = model.device().is_cpu() ? kMicroBatchTokens : kMicroBatchTokensOnGpu;
  std::vector<Way> all;
  for (int64_t micro = batch; micro > 0; --micro) {
    if (batch % micro) continue;
    for (const int64_t every : {0, 8, 4, 3, 2, 1}) {
      Way way{.options = options};
      way.options.micro_batch_size = micro;
      way.options.gradient_accumulation_steps = batch / micro;
      way.options.gradient_checkpointing = every > 0;
      way.options.gradient_checkpointing_every = std::max<int64_t>(1, every);
      way.cost = (tokens + each * static_cast<double>(batch / micro)) *
                 (1 + (every ? kForward / static_cast<double>(every) : 0));
      all.push_back(std::move(way));
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Way& a, const Way& b) { return a.cost < b.cost; });
  return all;
}

}  // namespace

Json Fit::to_json() const {
  return {{"micro_batch_size", options.micro_batch_size},
          {"gradient_accumulation_steps", options.gradient_accumulation_steps},
          {"gradient_checkpointing", options.gradient_checkpointing},
          {"gradient_checkpointing_every", options.gradient_checkpointing_every},
          {"memory_bytes", memory.total()},
          {"reason", reason}};
}

Fit Fit::from_json(const Json& object, const TrainOptions& options, const std::string& where) {
  Fit fit{.options = options};
  fit.options.micro_batch_size = json_get<int64_t>(object, "micro_batch_size", where);
  fit.options.gradient_accumulation_steps = json_get<int64_t>(object, "gradient_accumulation_steps", where);
  fit.options.gradient_checkpointing = json_get<bool>(object, "gradient_checkpointing", where);
  fit.options.gradient_checkpointing_every = json_get<int64_t>(object, "gradient_checkpointing_every", where);
  fit.reason = json_get<std::string>(object, "reason", where);
  if (fit.options.micro_batch_size < 1 || fit.options.gradient_accumulation_steps < 1 ||
      fit.options.gradient_checkpointing_every < 1 || fit.options.windows_per_step() != options.windows_per_step())
    fail(Exit::bad_input, "{}: {} × {} windows are not the recipe's {} × {}", where, fit.options.micro_batch_size,
         fit.options.gradient_accumulation_steps, options.micro_batch_size, options.gradient_accumulation_steps);
  return fit;
}

Fit fit_training(CausalLM& model, const PackedDataset& data, const PackedDataset* validation,
                 const TrainOptions& options, uint64_t seed) {
  const int64_t limit = options.fit->memory.bytes;
  const std::vector<Way> all = ways(model, data, options);
  std::string faster;  // the slowest one that was still too large
  Fit smallest;
  for (const Way& way : all) {
    Fit fit{.options = way.options, .memory = plan_memory(model, data, validation, way.options, seed)};
    const auto bytes = static_cast<int64_t>(kReserve * static_cast<double>(fit.memory.total()));
    const std::string need = fmt::format("{} needs {}", shown(way.options), size_of(bytes));
    if (bytes <= limit) {
      fit.reason = fmt::format("{} of {}; {}", need, size_of(limit),
                               faster.empty() ? "nothing is faster" : "the next faster way, " + faster);
      return fit;
    }
    faster = need;
    if (smallest.reason.empty() || fit.memory.total() < smallest.memory.total()) {
      smallest = fit;
      smallest.reason = need;
    }
  }
  const MemoryPlan& m = smallest.memory;
  fail(
      Exit::usage,
      "train.fit.memory: {}, but the smallest way, {} (program {}, weights {}, adapters and optimizer {}, activations "
      "{}, workspace {}). Try a quantized model.base, a shorter data.max_length, a lower adapter.r or train.optimizer: "
      "adamw_8bit",
      size_of(limit), smallest.reason, size_of(m.program), size_of(m.weights), size_of(m.adapters),
      size_of(m.activations), size_of(m.workspace));
}

}  // namespace retort
