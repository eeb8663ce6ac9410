// A tiny llama model as a Hugging Face folder and as a GGUF file: the same weights in both.
#pragma once

#include <ATen/ATen.h>
#include <ggml.h>

#include <filesystem>
#include <map>
#include <string>

#include "core/json.h"
#include "models/family.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace retort {

/// Heads of their own size, grouped keys, every bias, an untied head: whatever a llama model can have.
inline Json tiny_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 13},
          {"hidden_size", 10},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 6},
          {"intermediate_size", 14},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_parameters",
           {{"rope_type", "llama3"},
            {"rope_theta", 10000.0},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 16}}},
          {"attention_bias", true},
          {"mlp_bias", true},
          {"tie_word_embeddings", false}};
}

using TinyTensors = std::map<std::string, at::Tensor>;

inline TinyTensors tiny_tensors(const Json& json) {
  const Family& family = family_of_model_type(json["model_type"], "tiny");
  at::manual_seed(5);
  TinyTensors tensors;
  for (const TensorSpec& spec : family.tensors(family.from_hf(json, "tiny")))
    tensors[spec.name] = at::randn(spec.shape);
  return tensors;
}

inline void write_tiny_folder(const std::filesystem::path& folder, const Json& json, const TinyTensors& tensors) {
  std::filesystem::create_directories(folder);
  write_json(folder / "config.json", json);
  write_safetensors(folder / "model.safetensors", {tensors.begin(), tensors.end()});
}

/// The same in F32, written as an exporter does it.
inline void write_tiny_gguf(const std::filesystem::path& path, const Json& json, const TinyTensors& tensors) {
  const Family& family = family_of_model_type(json["model_type"], "tiny");
  const ModelConfig config = family.from_hf(json, "tiny");
  const auto specs = family.tensors(config);
  GgufWriter writer;
  family.write_metadata(config, writer);
  const auto half = static_cast<int64_t>(config.rope_factors.size());
  if (half > 0) writer.add("rope_freqs.weight", GGML_TYPE_F32, std::vector<int64_t>{half});
  for (const TensorSpec& spec : specs) writer.add(spec.gguf, GGML_TYPE_F32, spec.shape);
  writer.begin(path);
  const auto bytes = [](const void* data, size_t size) { return std::span(static_cast<const uint8_t*>(data), size); };
  if (half > 0) writer.write("rope_freqs.weight", bytes(config.rope_factors.data(), config.rope_factors.size() * 4));
  for (const TensorSpec& spec : specs) {
    at::Tensor tensor = tensors.at(spec.name);
    if (const auto order = rows_to_gguf(spec); !order.empty())
      tensor = tensor.index_select(0, at::tensor(order, at::kLong));
    tensor = tensor.contiguous();
    writer.write(spec.gguf, bytes(tensor.const_data_ptr(), tensor.nbytes()));
  }
  writer.commit();
}

}  // namespace retort
