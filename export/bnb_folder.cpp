#include "export/bnb_folder.h"

#include <ATen/ATen.h>
#include <ggml.h>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "models/bnb_state_dict.h"
#include "models/gguf.h"
#include "models/quantized_checkpoint.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// What a GGUF file's configuration is in transformers' words.
Json config_of(const Checkpoint& base) {
  const ModelConfig& c = base.config();
  const std::string where = base.path().string();
  if (c.family != "llama" || !c.rope_factors.empty() || c.attention_bias != c.attention_output_bias)
    fail(Exit::usage,
         "{}: its rotary factors or biases cannot be written to config.json; quantize the Hugging Face folder that the "
         "file was made of",
         where);
  Json rope = {{"rope_type", c.rope_linear_factor == 1 ? "default" : "linear"}, {"rope_theta", c.rope_theta}};
  if (c.rope_linear_factor != 1) rope["factor"] = c.rope_linear_factor;
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"vocab_size", c.vocab},
                 {"hidden_size", c.dim},
                 {"intermediate_size", c.ffn},
                 {"num_hidden_layers", c.layers},
                 {"num_attention_heads", c.heads},
                 {"num_key_value_heads", c.kv_heads},
                 {"head_dim", c.head_dim},
                 {"max_position_embeddings", c.context},
                 {"rms_norm_eps", c.norm_eps},
                 {"rope_parameters", rope},
                 {"hidden_act", "silu"},
                 {"attention_bias", c.attention_bias},
                 {"mlp_bias", c.mlp_bias},
                 {"tie_word_embeddings", c.tied},
                 {"dtype", "float32"}};
  for (const char* token : {"bos_token_id", "eos_token_id"})
    if (const std::string key = std::string("tokenizer.ggml.") + token; base.gguf()->has(key))
      config[token] = base.gguf()->integer(key);
  return config;
}

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

/// Tokenizer, chat template, generation defaults: all but the weights and what says where they lie.
bool goes_along(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
  const bool text = extension == ".json" || extension == ".txt" || extension == ".model" || extension == ".jinja";
  return entry.is_regular_file() && text && name != "config.json" && !name.ends_with(".index.json");
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
  Json config = base.is_gguf() ? config_of(base) : read_json(base.path() / "config.json");
  config["quantization_config"] = quantization_config(options);

  AtomicFolder atomic(folder);
  write_safetensors(atomic.temporary() / "model.safetensors", tensors);
  write_json(atomic.temporary() / "config.json", config);
  if (!base.is_gguf())
    for (const auto& entry : fs::directory_iterator(base.path()))
      if (goes_along(entry)) fs::copy_file(entry.path(), atomic.temporary() / entry.path().filename());
  atomic.commit();
}

}  // namespace retort
