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

/// What an objective keeps from step to step: it and the loop share this, and checkpoints hold all but the functions.
struct ObjectiveState {
  std::vector<Parameter> parameters = {};  ///< trained beside the adapters', of which they are no part
  std::map<std::string, double> numbers = {};
  std::map<std::string, at::Tensor> tensors = {};  ///< not trained; under other names than `parameters`
  /// Sums over trained tokens since the last line of metrics, which shows them divided by the number of tokens.
  std::map<std::string, double> sums = {};
  /// Called after each update with the share of the run's updates that are made, and the step's loss in nats a token.
  std::vector<std::function<void(double progress, double loss)>> after_update = {};
};

/// -log p(label), summed.
Objective cross_entropy_objective();

}  // namespace retort
