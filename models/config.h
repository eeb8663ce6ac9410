// What a decoder-only model of the llama family is, apart from its weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
  double norm_eps = 1e-5, rope_theta = 1e4;  ///< as f32 has them
  double rope_linear_factor = 1;             ///< > 1: positions are divided by it
  /// Only from config.json; a GGUF file holds what follows from it, the divisors below.
  std::optional<Llama3RopeScaling> llama3;
  /// Divisors of the rotary frequencies, [head_dim / 2], as llama.cpp applies them; empty: none. Also set with llama3.
  std::vector<float> rope_factors;
  bool tied = false;  ///< the head is the embedding
  bool attention_bias = false, attention_output_bias = false, mlp_bias = false;
  int64_t sliding_window = 0;  ///< 0: none. GGUF's llama architecture has no key for it.
};

}  // namespace retort
