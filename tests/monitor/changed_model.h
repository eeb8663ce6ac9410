// The real model with other bytes of one tensor, or other tokens.
#pragma once

#include <ATen/ATen.h>
#include <ggml.h>

#include <functional>

#include "models/gguf.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {

inline std::filesystem::path changed_model(const TemporaryFolder& folder, const std::string& name,
                                           const std::function<void(GgufWriter&)>& metadata,
                                           const std::function<void(const std::string&, at::Tensor&)>& weights) {
  const auto real = GgufFile::open(smollm2_path());
  GgufWriter writer;
  writer.copy_metadata(*real);
  metadata(writer);
  const auto is_matrix = [](const QuantizedTensor& tensor) { return tensor.shape().size() > 1; };
  for (const QuantizedTensor& tensor : real->tensors())
    writer.add(tensor.name(), is_matrix(tensor) ? GGML_TYPE_F16 : GGML_TYPE_F32, tensor.shape());
  writer.begin(folder / name);
  for (const QuantizedTensor& tensor : real->tensors()) {
    at::Tensor dense = tensor.dequantize(at::kFloat);
    weights(tensor.name(), dense);
    if (is_matrix(tensor)) dense = dense.to(at::kHalf);
    writer.write(tensor.name(), {static_cast<const uint8_t*>(dense.const_data_ptr()), dense.nbytes()});
  }
  writer.commit();
  return folder / name;
}

}  // namespace retort
