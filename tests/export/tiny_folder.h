// A small Llama as a Hugging Face folder, with a tokenizer of tests/golden/tokenizers.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/family.h"
#include "models/safetensors.h"

namespace retort {

inline Json tiny_folder_config(int64_t layers = 2) {
  return {{"model_type", "llama"},
          {"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 512},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", layers},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"tie_word_embeddings", false}};
}

/// Random weights of `dtype`; those of `inert` layers add nothing to the hidden states.
inline void write_tiny_folder(const std::filesystem::path& folder, const Json& config,
                              at::ScalarType dtype = at::kBFloat16, const std::vector<int64_t>& inert = {}) {
  std::filesystem::copy(std::filesystem::path(RETORT_GOLDEN) / "tokenizers" / "smollm", folder);
  write_json(folder / "config.json", config);
  Json tokenizer = read_json(folder / "tokenizer_config.json");
  tokenizer["chat_template"] =
      "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
      "{% else %}{{ '\n' }}{% endif %}{% endfor %}";
  write_json(folder / "tokenizer_config.json", tokenizer);
  const Family& family = family_of_model_type("llama", "tiny");
  at::manual_seed(1);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const TensorSpec& spec : family.tensors(family.from_hf(config, "tiny"))) {
    const at::Tensor noise = at::randn(spec.shape);
    at::Tensor weight =
        spec.shape.size() == 1 ? 1 + 0.2 * noise : noise / std::sqrt(static_cast<double>(spec.shape.back()));
    for (const int64_t layer : inert) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      if (spec.name == prefix + "self_attn.o_proj.weight" || spec.name == prefix + "mlp.down_proj.weight")
        weight = at::zeros(spec.shape);
    }
    tensors.emplace_back(spec.name, weight.to(dtype));
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

}  // namespace retort
