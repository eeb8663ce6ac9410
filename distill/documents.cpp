#include "distill/documents.h"

#include <ATen/ATen.h>

#include "core/hash.h"

namespace retort {

DocumentKey document_key(std::span<const int32_t> ids) {
  const std::string_view bytes(reinterpret_cast<const char*>(ids.data()), ids.size_bytes());
  return {xxh3(bytes), xxh3(bytes, 0x9e3779b97f4a7c15)};
}

void for_documents(const Batch& batch, const std::function<void(const BatchDocument&)>& each) {
  const at::Tensor ids = batch.ids.to(at::kCPU, at::kInt), labels = batch.labels.to(at::kCPU);
  const auto* id = ids.const_data_ptr<int32_t>();
  const auto* label = labels.const_data_ptr<int64_t>();
  std::vector<int64_t> trained;
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
    const int64_t begin = batch.offsets[d], end = batch.offsets[d + 1];
    trained.clear();
    for (int64_t t = begin; t < end; ++t)
      if (label[t] >= 0) trained.push_back(t - begin);
    each({{id + begin, static_cast<size_t>(end - begin)}, trained, begin});
  }
}

}  // namespace retort
