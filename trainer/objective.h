// What a run minimizes. One loop trains for every objective.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "models/batch.h"
#include "models/causal_lm.h"

namespace retort {

/// The sum over the batch's trained tokens of the loss in nats, a differentiable scalar; the loop divides by the
/// trained tokens of the whole accumulated batch. `windows` are the data set's indices of what the batch holds, to look
/// up what is cached for them.
using Objective = std::function<at::Tensor(CausalLM& model, const Batch& batch, std::span<const int64_t> windows,
                                           const ForwardOptions& options)>;

/// -log p(label), summed.
Objective cross_entropy_objective();

}  // namespace retort
