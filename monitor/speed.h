// How fast a file is served on this machine.
#pragma once

#include <cstdint>
#include <filesystem>

namespace retort {

struct Speed {
  double prompt_tokens_per_second = 0;      ///< one prompt of 512 tokens
  double generation_tokens_per_second = 0;  ///< 64 tokens after it
  double first_token_seconds = 0;           ///< from a short prompt (32 tokens) to the first token
  int64_t memory_bytes = 0;                 ///< weights, cache and buffers, as llama.cpp reports them
};

/// The best of three, as noise only ever slows; a few seconds for a small model. threads 0: the cores this process may use.
Speed measure_speed(const std::filesystem::path& path, int threads);

}  // namespace retort
