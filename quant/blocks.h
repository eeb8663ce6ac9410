// How ggml's blocks and bitsandbytes' codes become weights: the same functions for the CPU's loops and for CUDA's
// kernels.
//
// A block is cut into runs of weights that share scale and position of their bits: run_of() reads what they share, and
// the run's operator() gives the weight of each. Operations and their order are those of ggml's dequantize_row_*
// (ggml-quants.c) and of bitsandbytes' dequantization, each rounded for itself: compile without contraction into fused
// multiply-adds (-ffp-contract=off, -fmad=false).
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define RETORT_HD __host__ __device__ __forceinline__
#else
#define RETORT_HD [[gnu::always_inline]] inline
#endif

namespace retort::blocks {

RETORT_HD float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

RETORT_HD uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// IEEE half, little-endian at `p`; exact, subnormals included. Source: ggml-impl.h, ggml_compute_fp16_to_fp32.
RETORT_HD float half_at(const uint8_t* p) {
  const uint32_t w = (uint32_t{p[0]} | uint32_t{p[1]} << 8) << 16;
  const uint32_t sign = w & 0x80000000u, magnitude = w + w;
  const float normal = float_of_bits((magnitude >> 4) + (0xE0u << 23)) * float_of_bits(0x7800000u);  // 2^-112
  const float subnormal = float_of_bits((magnitude >> 17) | (126u << 23)) - 0.5f;
  return float_of_bits(sign | bits_of_float(magnitude < (1u << 27) ? subnormal : normal));
}

/// Four bits a weight, low halves first: weights 0-15, then 16-31. `Minus`: what is taken off a code.
template <int Minus>
struct Nibbles {
  struct Run {
    float d;
    const uint8_t* q;
    int shift;
    RETORT_HD float operator()(int i) const { return static_cast<float>((q[i] >> shift & 15) - Minus) * d; }
  };
};

struct Q4_0 {
  static constexpr int weights = 32, bytes = 18, run = 16;
  using Run = Nibbles<8>::Run;
  RETORT_HD static Run run_of(const uint8_t* b, int r) { return {half_at(b), b + 2, 4 * r}; }
};

struct Q4_1 {
  static constexpr int weights = 32, bytes = 20, run = 16;
  struct Run {
    float d, m;
    const uint8_t* q;
    int shift;
    RETORT_HD float operator()(int i) const { return static_cast<float>(q[i] >> shift & 15) * d + m; }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) { return {half_at(b), half_at(b + 2), b + 4, 4 * r}; }
};

/// The fifth bits of 32 weights lie together, bit i for weight i.
RETORT_HD uint32_t word_at(const uint8_t* p) {
  return uint32_t{p[0]} | uint32_t{p[1]} << 8 | uint32_t{p[2]} << 16 | uint32_t{p[3]} << 24;
}

struct Q5_0 {
  static constexpr int weights = 32, bytes = 22, run = 16;
  struct Run {
    float d;
    const uint8_t* q;
    int shift;
    uint32_t high;
    RETORT_HD float operator()(int i) const {
      return static_cast<float>(static_cast<int>((q[i] >> shift & 15) | (high >> i & 1) << 4) - 16) * d;
    }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) { return {half_at(b), b + 6, 4 * r, word_at(b + 2) >> 16 * r}; }
};

struct Q5_1 {
  static constexpr int weights = 32, bytes = 24, run = 16;
  struct Run {
    float d, m;
    const uint8_t* q;
    int shift;
    uint32_t high;
    RETORT_HD float operator()(int i) const {
      return static_cast<float>(static_cast<int>((q[i] >> shift & 15) | (high >> i & 1) << 4)) * d + m;
    }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    return {half_at(b), half_at(b + 2), b + 8, 4 * r, word_at(b + 4) >> 16 * r};
  }
};

struct Q8_0 {
  static constexpr int weights = 32, bytes = 34, run = 32;
  struct Run {
    float d;
    const uint8_t* q;
    RETORT_HD float operator()(int i) const { return static_cast<float>(static_cast<int8_t>(q[i])) * d; }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int) { return {half_at(b), b + 2}; }
};

struct Q2_K {
  static constexpr int weights = 256, bytes = 84, run = 16;
  struct Run {
    float d, m;
    const uint8_t* q;
    int shift;
    RETORT_HD float operator()(int i) const { return d * static_cast<float>(q[i] >> shift & 3) - m; }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    return {half_at(b + 80) * static_cast<float>(b[r] & 15), half_at(b + 82) * static_cast<float>(b[r] >> 4),
            b + 16 + 32 * (r / 8) + 16 * (r % 2), r % 8 / 2 * 2};
  }
};

struct Q3_K {
  static constexpr int weights = 256, bytes = 110, run = 16;
  struct Run {
    float d;
    const uint8_t *q, *high;
    int shift, bit;
    RETORT_HD float operator()(int i) const {
      return d * static_cast<float>((q[i] >> shift & 3) - 4 + 4 * (high[i] >> bit & 1));
    }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    const uint8_t* scales = b + 96;  // 16 of six bits: the low four in 8 bytes, the high two in 4
    const int low = scales[r % 8] >> r / 8 * 4 & 15, top = scales[8 + r % 4] >> r / 4 * 2 & 3;
    return {half_at(b + 108) * static_cast<float>((low | top << 4) - 32), b + 32 + 32 * (r / 8) + 16 * (r % 2),
            b + 16 * (r % 2), r % 8 / 2 * 2, r / 2};
  }
};

/// The six-bit scale (`minimum`: or minimum) of run `r` of eight: ggml's get_scale_min_k4.
RETORT_HD int six_bits(const uint8_t* scales, int r, bool minimum) {
  if (r < 4) return scales[minimum ? r + 4 : r] & 63;
  const int low = minimum ? scales[r + 4] >> 4 : scales[r + 4] & 15;
  return low | scales[minimum ? r : r - 4] >> 6 << 4;
}

struct Q4_K {
  static constexpr int weights = 256, bytes = 144, run = 32;
  struct Run {
    float d, m;
    const uint8_t* q;
    int shift;
    RETORT_HD float operator()(int i) const { return d * static_cast<float>(q[i] >> shift & 15) - m; }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    return {half_at(b) * static_cast<float>(six_bits(b + 4, r, false)),
            half_at(b + 2) * static_cast<float>(six_bits(b + 4, r, true)), b + 16 + 32 * (r / 2), r % 2 * 4};
  }
};

struct Q5_K {
  static constexpr int weights = 256, bytes = 176, run = 32;
  struct Run {
    float d, m;
    const uint8_t *q, *high;
    int shift, bit;
    RETORT_HD float operator()(int i) const {
      return d * static_cast<float>((q[i] >> shift & 15) + 16 * (high[i] >> bit & 1)) - m;
    }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    return {half_at(b) * static_cast<float>(six_bits(b + 4, r, false)),
            half_at(b + 2) * static_cast<float>(six_bits(b + 4, r, true)),
            b + 48 + 32 * (r / 2),
            b + 16,
            r % 2 * 4,
            r};
  }
};

struct Q6_K {
  static constexpr int weights = 256, bytes = 210, run = 16;
  struct Run {
    float d;
    const uint8_t *q, *high;
    int shift, bit;
    RETORT_HD float operator()(int i) const {
      return d * static_cast<float>((q[i] >> shift & 15) - 32 + 16 * (high[i] >> bit & 3));
    }
  };
  RETORT_HD static Run run_of(const uint8_t* b, int r) {
    const int half = r / 8, quarter = r % 8 / 2, part = 16 * (r % 2);  // of 128 weights; 32 of those; 16 of those
    return {half_at(b + 208) * static_cast<float>(static_cast<int8_t>(b[192 + r])),
            b + 64 * half + 32 * (quarter % 2) + part, b + 128 + 32 * half + part, quarter / 2 * 4, quarter * 2};
  }
};

/// bitsandbytes: the scale of a block whose scales are themselves codes.
RETORT_HD float nested_scale(const float* map, uint8_t code, float absmax, float offset) {
  return map[code] * absmax + offset;
}
/// Weight `i` of 4-bit codes, the first of two in the high half of a byte.
RETORT_HD float four_bits(const float* table, const uint8_t* codes, int64_t i, float scale) {
  return table[codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * scale;
}
/// LLM.int8.
RETORT_HD float int8_weight(int8_t code, float scale) {
  return static_cast<float>(code) * scale * 7.874015718698502e-3f;  // 1 / 127
}

#ifndef __CUDACC__
/// All weights of the block at `b`.
template <typename Type>
RETORT_HD void decode(const uint8_t* b, float* __restrict out) {
  for (int r = 0; r < Type::weights / Type::run; ++r) {
    const typename Type::Run weight = Type::run_of(b, r);
#pragma GCC unroll 1  // a loop of 16 that is unrolled before it is vectorized stays scalar
    for (int i = 0; i < Type::run; ++i) out[r * Type::run + i] = weight(i);
  }
}
#endif

}  // namespace retort::blocks
