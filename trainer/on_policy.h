// On-policy distillation (GKD, https://arxiv.org/abs/2306.13649): the student answers itself, the teacher scores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "models/served.h"
#include "trainer/objective.h"

namespace retort {

/// What the student says after a prompt: at most `limit` tokens, without the one that ends generation; `stopped` says
/// whether that came.
using Continue = std::function<Generated(std::span<const int32_t> prompt, int64_t limit, uint64_t seed)>;

/// Samples from llama.cpp. `serve` opens the student with the adapters that `model` has during the call; it is called
/// again every `every` prompts, so that what is sampled lags behind by so much. `state` keeps the adapters that are
/// served and how many prompts they have left: a resumed run's prompts are answered by those that had been served.
/// Error(bad_input) when a checkpoint's do not fit the model.
Continue served_continuations(CausalLM& model, std::function<std::unique_ptr<ServedModel>()> serve, double temperature,
                              int64_t every, std::shared_ptr<ObjectiveState> state);

/// The batch with the student's answers in place of its own: of each document the tokens before the first trained one
/// are the prompt, what `go_on` gives is trained, and so is the document's last trained token behind an answer that
/// ended by itself. A document with no prompt stays as it is.
Batch own_answers(const Batch& batch, const Continue& go_on, int64_t limit, uint64_t seed);

struct OnPolicyOptions {
  double lambda = 0.5;           ///< share of the batches that the student answers itself
  int64_t max_new_tokens = 128;  ///< of an answer
  uint64_t seed = 42;
};

/// Batches are drawn by lambda: `recorded` for those that stay, `own` for those with the student's answers, whose loss
/// is scaled to the number of trained tokens that the loop expects. `own` has no cross entropy: what was sampled is no
/// answer to learn. Which and what is drawn follows from the seed and
/// the number of batches so far, which `state` keeps, so that a resumed run goes on as it would have. `own` must ask
/// its teacher online: no cache holds what the student will say.
Objective on_policy_objective(Objective recorded, Objective own, Continue go_on, const OnPolicyOptions& options,
                              std::shared_ptr<ObjectiveState> state);

}  // namespace retort
