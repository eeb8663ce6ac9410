#include "adapters/merge.h"

namespace retort {

std::map<std::string, const LinearAdapter*> adapted_weights(CausalLM& model) {
  std::map<std::string, const LinearAdapter*> adapters;
  for (const Linear* linear : model.linears())
    if (linear->adapter) adapters[linear->name + ".weight"] = linear->adapter.get();
  return adapters;
}

at::Tensor merged_weight(const QuantizedTensor& stored, const LinearAdapter& adapter) {
  return adapter.merged(stored.dequantize(at::kFloat));
}

}  // namespace retort
