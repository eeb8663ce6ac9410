// Checkpoints: all that a run needs to go on as if it had never stopped.
//
//   checkpoints/step-000050/adapter/                PEFT files, usable as they are
//   checkpoints/step-000050/optimizer.safetensors   the optimizer's state, the random generators
//   checkpoints/step-000050/objective.safetensors   the objective's tensors, if it has any
//   checkpoints/step-000050/state.json              counters, loader, objective, best, and what the run must not have
//   changed
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/loader.h"
#include "trainer/metrics.h"
#include "trainer/objective.h"
#include "trainer/optimizer.h"

namespace retort {

/// Lowest validation loss so far.
struct Best {
  int64_t step = 0;
  double validation_loss = 0;
};

/// Everything that counts up during a run. Written only between two updates.
struct TrainState {
  int64_t step = 0;  ///< updates made
  int64_t tokens = 0, trained_tokens = 0;
  double loss_first = 0, loss_last = 0;  ///< nats a trained token of the first and the latest step
  double seconds = 0;                    ///< spent in steps, without validation and saving
  int64_t peak_memory_bytes = 0;         ///< of every process that worked on the run
  // since the last line of metrics
  double pending_loss = 0;  ///< sum of nats
  int64_t pending_trained = 0, pending_tokens = 0;
  double pending_seconds = 0;
  // validation
  std::optional<double> validation_loss;  ///< the latest
  std::optional<Best> best;
  int64_t evaluations_without_improvement = 0;
  bool stopped_early = false;
  MetricsLog::Lengths lengths;

  Json to_json() const;
  static TrainState from_json(const Json& object, const std::string& where);
};

struct CheckpointFolder {
  int64_t step = 0;
  std::filesystem::path path;
};

/// Finished checkpoints under `checkpoints`, oldest first. Half-written ones have another name and are not seen.
std::vector<CheckpointFolder> list_checkpoints(const std::filesystem::path& checkpoints);

/// "step-000050"
std::filesystem::path checkpoint_path(const std::filesystem::path& checkpoints, int64_t step);

/// Writes one checkpoint; it appears whole or not at all. `identity`: flat object of what a later resume must agree on.
/// `objective`: what the objective keeps, or null. `save_adapter` writes the PEFT files into the folder it is given.
/// Error(io) leaves older checkpoints alone.
void save_checkpoint(const std::filesystem::path& path, const Optimizer& optimizer, const Loader& loader,
                     const TrainState& state, const Json& identity, const ObjectiveState* objective,
                     const std::function<void(const std::filesystem::path&)>& save_adapter);

/// Restores parameters, optimizer, generators, loader and objective; returns the counters. Error(usage) names what
/// differs between `identity` and the run that wrote the checkpoint; Error(bad_input) names a file that does not hold
/// what it must.
TrainState load_checkpoint(const std::filesystem::path& path, Optimizer& optimizer, Loader& loader,
                           const Json& identity, ObjectiveState* objective);

/// Copies the tensors of <path>/adapter/adapter_model.safetensors into the parameters.
void load_parameters(const std::filesystem::path& path, const std::vector<Parameter>& parameters);

/// Removes the oldest checkpoints until `limit` are left; the best one is kept besides and not counted.
void prune_checkpoints(const std::filesystem::path& checkpoints, std::optional<int64_t> limit,
                       const std::optional<Best>& best);

}  // namespace retort
