// The real model as transformers sees it.
#pragma once

#include <ATen/ATen.h>
#include <ggml.h>

#include "models/gguf.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"

namespace retort {

/// The real model dequantized to F32: what the golden files' scripts load.
inline const std::filesystem::path& f32_model() {
  static TemporaryFolder folder;
  static const std::filesystem::path path = [] {
    const auto real = GgufFile::open(smollm2_path());
    GgufWriter writer;
    writer.copy_metadata(*real);
    for (const QuantizedTensor& tensor : real->tensors()) writer.add(tensor.name(), GGML_TYPE_F32, tensor.shape());
    writer.begin(folder.path() / "f32.gguf");
    for (const QuantizedTensor& tensor : real->tensors()) {
      const at::Tensor dense = tensor.dequantize(at::kFloat);
      writer.write(tensor.name(), {static_cast<const uint8_t*>(dense.const_data_ptr()), dense.nbytes()});
    }
    writer.commit();
    return folder.path() / "f32.gguf";
  }();
  return path;
}

}  // namespace retort
