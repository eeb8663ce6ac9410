#include "adapters/merge.h"

#include <ATen/ATen.h>

namespace retort {

std::map<std::string, std::function<at::Tensor()>> merged_tensors(const Checkpoint& base, CausalLM& model) {
  std::map<std::string, std::function<at::Tensor()>> merged;
  for (const Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    const std::string weight = linear->name + ".weight", bias = linear->name + ".bias";
    // A tied head has no tensor of its own: the merged model gets one.
    const std::string stored = base.has(weight) ? weight : "model.embed_tokens.weight";
    merged[weight] = [&base, linear, stored] {
      return linear->adapter->merged(base.tensor(stored).dequantize(at::kFloat));
    };
    if (!linear->adapter->bias(linear->bias).is_same(linear->bias))
      merged[bias] = [linear] { return linear->adapter->bias(linear->bias).to(at::kCPU, at::kFloat); };
  }
  if (const auto& adapter = model.embedding().adapter) {
    const std::string name = model.embedding().name + ".weight";
    merged[name] = [&base, &model, name] {
      return model.embedding().adapter->merged(base.tensor(name).dequantize(at::kFloat));
    };
    // The head was the same matrix. Where it does not change too, it gets the one that it had.
    if (model.config().tied && !merged.contains("lm_head.weight"))
      merged["lm_head.weight"] = [&base, name] { return base.tensor(name).dequantize(at::kFloat); };
    if (model.config().tied && adapter->changes_tied_head()) merged.erase("lm_head.weight");
  }
  return merged;
}

}  // namespace retort
