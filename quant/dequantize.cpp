#include "quant/dequantize.h"

#include <ggml.h>

#include <array>
#include <cstring>

#include "core/simd.h"
#include "quant/blocks.h"

namespace retort {
namespace {

template <typename Type>
RETORT_INLINE void decode_all(const uint8_t* b, int64_t weights, float* out) {
  for (int64_t i = 0; i < weights; i += Type::weights, b += Type::bytes) blocks::decode<Type>(b, out + i);
}

// A clone cannot be a template.
#define RETORT_LOOP(name) \
  RETORT_SIMD void name(const uint8_t* b, int64_t weights, float* out) { decode_all<blocks::name>(b, weights, out); }
RETORT_LOOP(Q4_0)
RETORT_LOOP(Q4_1)
RETORT_LOOP(Q5_0)
RETORT_LOOP(Q5_1)
RETORT_LOOP(Q8_0)
RETORT_LOOP(Q2_K)
RETORT_LOOP(Q3_K)
RETORT_LOOP(Q4_K)
RETORT_LOOP(Q5_K)
RETORT_LOOP(Q6_K)
#undef RETORT_LOOP

RETORT_SIMD void f16(const uint8_t* b, int64_t weights, float* out) {
  for (int64_t i = 0; i < weights; ++i) out[i] = blocks::half_at(b + 2 * i);
}

// A table of 16 floats is one register of AVX-512 and its lookup one instruction.
using Floats = float [[gnu::vector_size(64)]];
using Ints = int32_t [[gnu::vector_size(64)]];
using Bytes = uint8_t [[gnu::vector_size(16)]];

using Table = std::array<float, 16>;
constexpr Table iq4_values = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr Table mxfp4_values = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 32 weights of 16 bytes: the low halves, then the high ones.
RETORT_INLINE void lookup_halves(const uint8_t* codes, const Table& values, float scale, float* out) {
  Floats table;
  Bytes both;
  std::memcpy(&table, values.data(), sizeof table);
  std::memcpy(&both, codes, sizeof both);
  const Floats low = __builtin_shuffle(table, __builtin_convertvector(both & 15, Ints)) * scale;
  const Floats high = __builtin_shuffle(table, __builtin_convertvector(both >> 4, Ints)) * scale;
  std::memcpy(out, &low, sizeof low);
  std::memcpy(out + 16, &high, sizeof high);
}

RETORT_SIMD void iq4_nl(const uint8_t* b, int64_t weights, float* out) {
  for (int64_t i = 0; i < weights; i += 32, b += 18) lookup_halves(b + 2, iq4_values, blocks::half_at(b), out + i);
}

RETORT_SIMD void iq4_xs(const uint8_t* b, int64_t weights, float* out) {
  for (; weights > 0; weights -= 256, b += 136, out += 256) {
    const float d = blocks::half_at(b);
    const int high = b[2] | b[3] << 8;
    for (int r = 0; r < 8; ++r) {
      const int scale = (b[4 + r / 2] >> r % 2 * 4 & 15) | (high >> 2 * r & 3) << 4;
      lookup_halves(b + 8 + 16 * r, iq4_values, d * static_cast<float>(scale - 32), out + 32 * r);
    }
  }
}

/// Half of 2^(exponent - 127), also where that is subnormal.
float half_power(uint8_t exponent) {
  return blocks::float_of_bits(exponent < 2 ? 0x00200000u << exponent : (exponent - 1u) << 23);
}

RETORT_SIMD void mxfp4(const uint8_t* b, int64_t weights, float* out) {
  for (int64_t i = 0; i < weights; i += 32, b += 17) lookup_halves(b + 1, mxfp4_values, half_power(b[0]), out + i);
}

}  // namespace

ToFloats vectorized_to_floats(int ggml_type) {
  switch (ggml_type) {
    case GGML_TYPE_F16:
      return f16;
    case GGML_TYPE_Q4_0:
      return Q4_0;
    case GGML_TYPE_Q4_1:
      return Q4_1;
    case GGML_TYPE_Q5_0:
      return Q5_0;
    case GGML_TYPE_Q5_1:
      return Q5_1;
    case GGML_TYPE_Q8_0:
      return Q8_0;
    case GGML_TYPE_Q2_K:
      return Q2_K;
    case GGML_TYPE_Q3_K:
      return Q3_K;
    case GGML_TYPE_Q4_K:
      return Q4_K;
    case GGML_TYPE_Q5_K:
      return Q5_K;
    case GGML_TYPE_Q6_K:
      return Q6_K;
    case GGML_TYPE_IQ4_NL:
      return iq4_nl;
    case GGML_TYPE_IQ4_XS:
      return iq4_xs;
    case GGML_TYPE_MXFP4:
      return mxfp4;
    default:
      return nullptr;
  }
}

RETORT_SIMD void lookup_pairs(const uint8_t* codes, int64_t weights, const float* values, float scale, float* out) {
  Floats table;
  std::memcpy(&table, values, sizeof table);
  constexpr Ints word_of = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
  constexpr Ints shift_of = {4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24};
  int64_t i = 0;
  for (; i + 16 <= weights; i += 16) {
    int32_t words[2];
    std::memcpy(words, codes + i / 2, sizeof words);
    const Ints in_order = __builtin_shuffle(Ints{words[0], words[1]}, word_of) >> shift_of & 15;
    const Floats found = __builtin_shuffle(table, in_order) * scale;
    std::memcpy(out + i, &found, sizeof found);
  }
  for (; i < weights; i += 2) {
    out[i] = values[codes[i / 2] >> 4] * scale;
    out[i + 1] = values[codes[i / 2] & 15] * scale;
  }
}

}  // namespace retort
