#include "trainer/on_policy.h"

#include <ATen/ATen.h>

#include <utility>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/rng.h"

namespace retort {
namespace {

std::string served_name(const Parameter& parameter) { return "on_policy." + parameter.name; }

/// Puts the adapters that are served on the model as long as it lives, then those that are trained.
class WearingServed {
 public:
  WearingServed(const std::vector<Parameter>& parameters, const ObjectiveState& state) {
    for (const Parameter& p : parameters) {
      const auto kept = state.tensors.find(served_name(p));
      if (kept == state.tensors.end() || !kept->second.sizes().equals(p.tensor.sizes()))
        fail(Exit::bad_input,
             "the checkpoint's objective.safetensors: \"{}\" is missing or of another shape than \"{}\"",
             served_name(p), p.name);
    }
    for (const Parameter& p : parameters) {
      trained_.emplace_back(p.tensor.detach(), p.tensor.detach().clone());
      trained_.back().first.copy_(state.tensors.at(served_name(p)));
    }
  }
  ~WearingServed() {
    for (const auto& [tensor, before] : trained_) tensor.copy_(before);
  }
  WearingServed(const WearingServed&) = delete;
  WearingServed& operator=(const WearingServed&) = delete;

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> trained_;
};

}  // namespace

Continue served_continuations(CausalLM& model, std::function<std::unique_ptr<ServedModel>()> serve, double temperature,
                              int64_t every, std::shared_ptr<ObjectiveState> state) {
  return [&model, serve = std::move(serve), temperature, every, state = std::move(state),
          served = std::make_shared<std::unique_ptr<ServedModel>>()](std::span<const int32_t> prompt, int64_t limit,
                                                                     uint64_t seed) {
    double& left = state->numbers["on_policy_left"];
    if (left <= 0) {
      served->reset();  // one copy in memory
      for (const Parameter& p : trainable_parameters(model)) state->tensors[served_name(p)] = p.tensor.detach().clone();
      left = static_cast<double>(every);
    }
    if (!*served) {
      const WearingServed wearing(trainable_parameters(model), *state);
      *served = serve();
    }
    left -= 1;
    return (*served)->generate(prompt, limit, temperature, seed);
  };
}

Batch own_answers(const Batch& batch, const Continue& go_on, int64_t limit, uint64_t seed) {
  const at::Tensor ids = batch.ids.cpu(), labels = batch.labels.cpu();
  const auto *id = ids.const_data_ptr<int64_t>(), *label = labels.const_data_ptr<int64_t>();
  std::vector<int64_t> new_ids, new_labels;
  Batch result{{}, {}, {0}};
  Rng seeds(seed);
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
    const int64_t begin = batch.offsets[d], end = batch.offsets[d + 1];
    int64_t first = begin, last = -1;  // positions before the first and the last trained token
    while (first < end && label[first] < 0) ++first;
    for (int64_t t = first; t < end; ++t)
      if (label[t] >= 0) last = label[t];
    const uint64_t document_seed = seeds.next();
    const std::vector<int32_t> prompt(id + begin, id + std::min(first + 1, end));
    if (first == begin || first == end) {
      new_ids.insert(new_ids.end(), id + begin, id + end);
      new_labels.insert(new_labels.end(), label + begin, label + end);
    } else {
      const Generated answer = go_on(prompt, limit, document_seed);
      std::vector<int64_t> said(answer.ids.begin(), answer.ids.end());
      if (answer.stopped) said.push_back(last);
      new_ids.insert(new_ids.end(), prompt.begin(), prompt.end());
      new_ids.insert(new_ids.end(), said.begin(), said.end());
      new_labels.insert(new_labels.end(), prompt.size() - 1, -1);
      new_labels.insert(new_labels.end(), said.begin(), said.end());
      new_labels.push_back(-1);
    }
    result.offsets.push_back(static_cast<int64_t>(new_ids.size()));
  }
  result.ids = at::tensor(new_ids, at::kLong).to(batch.ids.device());
  result.labels = at::tensor(new_labels, at::kLong).to(batch.labels.device());
  return result;
}

Objective on_policy_objective(Objective recorded, Objective own, Continue go_on, const OnPolicyOptions& options,
                              std::shared_ptr<ObjectiveState> state) {
  return [=](CausalLM& model, const Batch& batch, std::span<const int64_t> windows, const ForwardOptions& forward) {
    double& batches = state->numbers["on_policy_batches"];
    Rng draw(options.seed, static_cast<uint64_t>(batches) + 1);
    batches += 1;
    if (draw.uniform() >= options.lambda) return recorded(model, batch, windows, forward);
    const Batch answered = own_answers(batch, go_on, options.max_new_tokens, draw.next());
    const auto expected = (batch.labels >= 0).sum().item<double>(),
               trained = (answered.labels >= 0).sum().item<double>();
    if (trained == 0) return recorded(model, batch, windows, forward);  // the student said nothing
    return own(model, answered, windows, forward) * (expected / trained);
  };
}

}  // namespace retort
