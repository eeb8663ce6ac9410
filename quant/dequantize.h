// Loops over blocks, vectorized for the processor they run on.
#pragma once

#include <cstdint>

namespace retort {

/// `weights` weights, whole blocks, to `out`.
using ToFloats = void (*)(const uint8_t* blocks, int64_t weights, float* out);

/// The loop for a ggml type, to the bit what ggml's to_float gives (NaNs may carry other bits); nullptr where ggml's
/// own is as fast or decodes from grids that only ggml has.
ToFloats vectorized_to_floats(int ggml_type);

/// out[2 i] and out[2 i + 1] = scale * table[high and low half of codes[i]], for `weights` weights, an even number.
void lookup_pairs(const uint8_t* codes, int64_t weights, const float* table, float scale, float* out);

}  // namespace retort
