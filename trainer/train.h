// The one training loop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "data/loader.h"
#include "models/causal_lm.h"
#include "trainer/metrics.h"
#include "trainer/objective.h"
#include "trainer/options.h"

namespace retort {

/// Where a run lives, and what it must find unchanged when it goes on.
struct TrainRun {
  std::filesystem::path folder;  ///< gets metrics.jsonl, tensorboard/, checkpoints/
  uint64_t seed = 0;
  bool resume = false;  ///< continue from the newest checkpoint in the folder; from the start when there is none
  /// Flat object of what else decides the result ("base.sha256", "adapter.r", ...). The loop adds its own options,
  /// seed, data and parameters. A checkpoint that differs is refused by the name of the key.
  Json identity = Json::object();
  std::shared_ptr<ObjectiveState> objective = {};  ///< what the objective keeps; nothing: it keeps nothing
  /// Writes the adapter's PEFT files into a folder that it makes.
  std::function<void(const std::filesystem::path&)> save_adapter = {};
};

struct TrainCallbacks {
  ProgressSink progress = {};
  std::function<void(const StepMetrics&)> on_metrics = {};  ///< after each line of metrics.jsonl
  std::function<void(int64_t step)> on_step = {};           ///< after each update
};

struct TrainResult {
  int64_t steps = 0;
  double epochs = 0;
  int64_t tokens = 0, trained_tokens = 0;
  double seconds = 0;  ///< spent in steps
  double tokens_per_second = 0;
  int64_t peak_memory_bytes = 0;  ///< of the process since training began or, on a GPU, of the device; also before a
                                  ///< resume
  double loss_first = 0, loss_last = 0;
  std::optional<double> validation_loss = {};       ///< nats a trained token, at the end
  std::optional<double> best_validation_loss = {};  ///< lowest, of best_step
  int64_t best_step = 0;
  bool stopped_early = false;
  bool loaded_best = false;          ///< the model ends with best_step's adapter
  std::filesystem::path checkpoint;  ///< the last one
  std::optional<std::filesystem::path> best_checkpoint = {};
};

/// Updates of a whole run over `windows` windows: max_steps, or the epochs' (the last batch of an epoch may be
/// smaller).
int64_t total_steps(const TrainOptions& options, int64_t windows);

struct Validation {
  double loss = 0;  ///< nats a trained token
  int64_t tokens = 0, trained_tokens = 0;
};
/// Cross entropy over a whole data set, `windows_per_batch` windows at a time, without gradients.
Validation validate(CausalLM& model, const PackedDataset& data, int64_t windows_per_batch);

/// Trains the parameters of the adapters attached to `model`. An accumulated batch is windows_per_step() windows; loss
/// and gradients are divided by its trained tokens, so its split into micro-batches changes nothing but rounding.
///
/// Errors: retry (75) after SIGINT or SIGTERM, when the step in hand is finished and a checkpoint is written; internal
/// (70) when a loss or gradient is not finite, after writing checkpoints/nonfinite-<step>/; io (74) when a checkpoint
/// cannot be written (the older ones stay); usage (64) for a checkpoint of another run.
TrainResult train(CausalLM& model, const std::vector<Parameter>& parameters, const PackedDataset& data,
                  const PackedDataset* validation, const Objective& objective, const TrainOptions& options,
                  const TrainRun& run, const TrainCallbacks& callbacks = {});

}  // namespace retort
