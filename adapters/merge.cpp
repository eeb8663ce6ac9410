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
  return merged;
}

}  // namespace retort
