// What a run minimizes. One loop trains for every objective.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "models/batch.h"
#include "models/causal_lm.h"

namespace retort {

/// The sum over the batch's trained tokens of the loss in nats, a differentiable scalar; the loop divides by the
/// trained tokens of the whole accumulated batch. `windows` are the data set's indices of what the batch holds, to look
/// up what is cached for them.
using Objective = std::function<at::Tensor(CausalLM& model, const Batch& batch, std::span<const int64_t> windows,
                                           const ForwardOptions& options)>;

/// What an objective keeps from step to step: it and the loop share this, and checkpoints hold it.
struct ObjectiveState {
  std::vector<Parameter> parameters = {};  ///< trained beside the model's; checkpoints have them, adapters do not
  std::map<std::string, double> numbers = {};
  /// Sums over trained tokens since the last line of metrics, which shows them divided by their number.
  std::map<std::string, double> sums = {};
  /// Called after each update with the share of the run's updates that are made, and the step's loss in nats a token.
  std::function<void(double progress, double loss)> after_update = {};
};

/// -log p(label), summed.
Objective cross_entropy_objective();

}  // namespace retort
