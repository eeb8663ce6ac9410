#include "distill/model_hash.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "core/hash.h"

namespace retort {

std::string hash_of(const GgufFile& file) {
  std::map<std::string, const QuantizedTensor*> sorted;
  for (const QuantizedTensor& tensor : file.tensors()) sorted[tensor.name()] = &tensor;
  Sha256 sha;
  for (const auto& [name, tensor] : sorted) {
    sha.update(fmt::format("{}\n{}\n[{}]\n", name, tensor->type_name(), fmt::join(tensor->shape(), ",")));
    for (const auto& part : tensor->parts()) sha.update(part);
  }
  return sha.hex();
}

std::string hash_of_adapter(const std::filesystem::path& folder) {
  return sha256_hex(sha256_file(folder / "adapter_config.json") + sha256_file(folder / "adapter_model.safetensors"));
}

std::string main_type(const std::vector<QuantizedTensor>& tensors) {
  std::map<std::string, int64_t> weights;
  for (const QuantizedTensor& tensor : tensors) weights[tensor.type_name()] += tensor.elements();
  const auto most = std::max_element(weights.begin(), weights.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == weights.end() ? "" : most->first;
}

}  // namespace retort
