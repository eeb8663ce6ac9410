// Eight weights at a time out of any quantized form, for kernels whose threads take eight each. The same functions run
// on the CPU, where tests hold them against ggml and bitsandbytes.
#pragma once

#include "quant/blocks.h"

namespace retort::blocks {

/// Weights i to i + 7 of ggml's blocks; i is a multiple of 8.
template <typename Type>
struct BlockDecoder {
  const uint8_t* data;
  RETORT_HD void eight(int64_t i, float* out) const {
    const int in_block = static_cast<int>(i % Type::weights), first = in_block % Type::run;
    const typename Type::Run weight = Type::run_of(data + i / Type::weights * Type::bytes, in_block / Type::run);
    for (int j = 0; j < 8; ++j) out[j] = weight(first + j);
  }
};

/// bitsandbytes' scales; `block` is a multiple of 8.
struct Scales {
  const float* absmax;
  const uint8_t* nested;  ///< nullptr: not double-quantized
  const float* map;       ///< of 256 codes
  float offset;
  int64_t block, nested_block;
  RETORT_HD float of(int64_t i) const {
    const int64_t b = i / block;
    return nested ? nested_scale(map, nested[b], absmax[b / nested_block], offset) : absmax[b];
  }
};

struct FourBitDecoder {
  const uint8_t* codes;
  const float* table;  ///< of 16 codes
  Scales scales;
  RETORT_HD void eight(int64_t i, float* out) const {
    const float scale = scales.of(i);
    for (int j = 0; j < 8; ++j) out[j] = four_bits(table, codes, i + j, scale);
  }
};

struct Int8RowsDecoder {
  const uint8_t* codes;
  Scales scales;
  RETORT_HD void eight(int64_t i, float* out) const {
    const float scale = scales.of(i);
    for (int j = 0; j < 8; ++j) out[j] = int8_weight(static_cast<int8_t>(codes[i + j]), scale);
  }
};

struct Int8BlocksDecoder {
  const uint8_t* codes;
  const float* table;  ///< of 256 codes
  Scales scales;
  RETORT_HD void eight(int64_t i, float* out) const {
    const float scale = scales.of(i);
    for (int j = 0; j < 8; ++j) out[j] = table[codes[i + j]] * scale;
  }
};

}  // namespace retort::blocks
