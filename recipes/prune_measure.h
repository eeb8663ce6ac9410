// How far a student is from its teacher, and which parts of a teacher carry what it says.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/batch.h"
#include "models/causal_lm.h"
#include "models/pruned_checkpoint.h"

namespace retort {

/// A model's final hidden states of each window, [T, dim]: a fraction of its logits' memory.
std::vector<at::Tensor> hidden_states(CausalLM& model, const std::vector<Batch>& windows);

/// A model's own word on some rows; `hidden` is hidden_states(model, windows).
struct RowLoss {
  double nats = 0;     ///< sum of -log p over the trained tokens
  int64_t tokens = 0;  ///< trained tokens
};
RowLoss loss_on(CausalLM& model, const std::vector<at::Tensor>& hidden, const std::vector<Batch>& windows);

/// Teacher against student at every token of some rows.
struct Fidelity {
  double kl = 0;    ///< mean KL(teacher || student) in nats a token, over the tokens that the student has
  double top1 = 0;  ///< share of tokens with the same most probable successor
  double lost = 0;  ///< mean probability that the teacher gives to tokens that the student lacks
  int64_t tokens = 0;
};

/// `hidden` is hidden_states(teacher, windows). `tokens`: the teacher's id of each of the student's; empty: the same.
/// Documents with a token that the student lacks are left out.
Fidelity compare(CausalLM& teacher, const std::vector<at::Tensor>& hidden, CausalLM& student,
                 const std::vector<Batch>& windows, const std::vector<int64_t>& tokens = {});

/// The KL alone. Windows are left out once it is sure to be above `limit`: what is given then is a lower bound that is
/// above it (no token's KL is negative).
double divergence(CausalLM& teacher, const std::vector<at::Tensor>& hidden, CausalLM& student,
                  const std::vector<Batch>& windows, double limit);

/// For each layer and MLP channel the root mean square of its activation over all tokens times the norm of its column
/// of down_proj: what it adds to the layer's output. [layers] of f32 [ffn].
std::vector<at::Tensor> channel_contributions(const Checkpoint& checkpoint, CausalLM& model,
                                              const std::vector<Batch>& windows);

}  // namespace retort
