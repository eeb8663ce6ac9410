#include "export/bnb_folder.h"

#include <ATen/ATen.h>
#include <ggml.h>

#include "core/error.h"
#include "core/files.h"
#include "export/hf_folder.h"
#include "models/bnb_state_dict.h"
#include "models/quantized_checkpoint.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

Json quantization_config(const BnbOptions& options) {
  if (options.format == BnbFormat::int8_rows)
    return {{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}, {"load_in_4bit", false}};
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", options.format == BnbFormat::nf4 ? "nf4" : "fp4"},
          {"bnb_4bit_use_double_quant", options.double_quantization},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_compute_dtype", "float32"}};
}

/// A tensor that is not quantized, in its own type where safetensors has it.
at::Tensor plain(const QuantizedTensor& stored) {
  const auto as = [&](at::ScalarType dtype) {
    return at::from_blob(
        const_cast<uint8_t*>(stored.bytes().data()), stored.shape(), [stored](void*) {}, dtype);
  };
  switch (stored.type()) {
    case GGML_TYPE_F32:
      return as(at::kFloat);
    case GGML_TYPE_F16:
      return as(at::kHalf);
    case GGML_TYPE_BF16:
      return as(at::kBFloat16);
    default:
      return stored.dequantize(at::kFloat);
  }
}

}  // namespace

void export_bnb_folder(const fs::path& folder, const Checkpoint& base, const BnbOptions& options) {
  if (options.format == BnbFormat::int8_blocks)
    fail(Exit::usage, "int8_blocks: transformers has no files of it; allowed: nf4, nf4_dq, fp4, fp4_dq, int8");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : base.names()) {
    const QuantizedTensor stored = base.tensor(name);
    if (!stored.is_ggml())
      fail(Exit::usage, "{}: {} is {} already; quantize the model it was made of", base.path().string(), name,
           stored.type_name());
    if (!is_block_matrix(stored)) {
      tensors.emplace_back(name, plain(stored));
      continue;
    }
    for (auto& part : bnb_state_dict(bnb_quantized(stored, options))) tensors.push_back(std::move(part));
  }
  Json config = hf_config(base, base.config());
  config["quantization_config"] = quantization_config(options);

  AtomicFolder atomic(folder);
  write_safetensors(atomic.temporary() / "model.safetensors", tensors);
  write_json(atomic.temporary() / "config.json", config);
  write_hf_tokenizer(atomic.temporary(), base);
  atomic.commit();
}

}  // namespace retort
