#include <algorithm>
#include <cstring>

#include "core/simd.h"
#include "quant/bnb.h"

namespace retort {
namespace {

/// The two weights of each byte.
using Pairs = std::array<std::array<float, 2>, 256>;

Pairs make_pairs(BnbFormat format) {
  const std::array<float, 16>& table = bnb_table(format);
  Pairs pairs;
  for (size_t i = 0; i < 256; ++i) pairs[i] = {table[i >> 4], table[i & 15]};
  return pairs;
}

const Pairs& pairs_of(BnbFormat format) {
  static const Pairs nf4 = make_pairs(BnbFormat::nf4), fp4 = make_pairs(BnbFormat::fp4);
  return format == BnbFormat::fp4 ? fp4 : nf4;
}

float scale_of(const BnbState& s, int64_t block) {
  const auto i = static_cast<size_t>(block);
  return s.is_double() ? s.nested_map[s.nested[i]] * s.absmax[i / static_cast<size_t>(s.nested_block)] + s.offset
                       : s.absmax[i];
}

RETORT_SIMD void multiply(float* out, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) out[i] *= scale;
}

RETORT_SIMD void int8_to_float(const int8_t* codes, int64_t n, float scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(codes[i]) * scale * 7.874015718698502e-3f;  // 1 / 127
}

/// Weights [begin, end), which have one scale.
void dequantize_piece(const BnbState& state, const uint8_t* codes, int64_t begin, int64_t end, float scale,
                      float* out) {
  const int64_t n = end - begin;
  switch (state.format) {
    case BnbFormat::int8_rows:
      return int8_to_float(reinterpret_cast<const int8_t*>(codes) + begin, n, scale, out);
    case BnbFormat::int8_blocks: {
      const std::array<float, 256>& map = signed_dynamic_map();
      for (int64_t i = 0; i < n; ++i) out[i] = map[codes[begin + i]];
      return multiply(out, n, scale);
    }
    default: {
      const Pairs& pairs = pairs_of(state.format);
      int64_t i = 0;
      if (begin % 2 != 0) out[i++] = pairs[codes[begin / 2]][1];
      const uint8_t* code = codes + (begin + i) / 2;
      for (; i + 2 <= n; i += 2) std::memcpy(out + i, pairs[*code++].data(), 2 * sizeof(float));
      if (i < n) out[i] = pairs[*code][0];
      return multiply(out, n, scale);
    }
  }
}

}  // namespace

void bnb_dequantize(const BnbState& state, const uint8_t* codes, int64_t begin, int64_t end, float* out) {
  while (begin < end) {
    const int64_t block = begin / state.block, stop = std::min(end, (block + 1) * state.block);
    dequantize_piece(state, codes, begin, stop, scale_of(state, block), out);
    out += stop - begin;
    begin = stop;
  }
}

}  // namespace retort
