// What a decoder-only model of the llama family is, apart from its weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/json.h"

namespace retort {

/// Rotary frequencies as Llama 3.1 scales them (config.json rope_scaling.rope_type "llama3").
struct Llama3RopeScaling {
  double factor = 8, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_context = 8192;
};

struct ModelConfig {
  std::string family;        ///< the file in models/families/: "llama"
  std::string architecture;  ///< GGUF's general.architecture
  int64_t vocab = 0, dim = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, context = 0;
  double norm_eps = 1e-5, rope_theta = 1e4;
  double rope_linear_factor = 1;  ///< > 1: positions are divided by it
  std::optional<Llama3RopeScaling> llama3;
  bool tied = false;  ///< the head is the embedding
  bool attention_bias = false, attention_output_bias = false, mlp_bias = false;
  int64_t sliding_window = 0;  ///< 0: none
};

}  // namespace retort
