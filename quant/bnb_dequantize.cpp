#include <algorithm>

#include "core/simd.h"
#include "quant/blocks.h"
#include "quant/bnb.h"
#include "quant/dequantize.h"

namespace retort {
namespace {

float scale_of(const BnbState& s, int64_t block) {
  const auto i = static_cast<size_t>(block);
  if (!s.is_double()) return s.absmax[i];
  return blocks::nested_scale(s.nested_map.data(), s.nested[i], s.absmax[i / static_cast<size_t>(s.nested_block)],
                              s.offset);
}

RETORT_SIMD void multiply(float* out, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) out[i] *= scale;
}

RETORT_SIMD void int8_to_float(const int8_t* codes, int64_t n, float scale, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = blocks::int8_weight(codes[i], scale);
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
      const float* table = bnb_table(state.format).data();
      int64_t i = 0;
      if (begin % 2 != 0) out[i++] = blocks::four_bits(table, codes, begin, scale);
      const int64_t whole = (n - i) / 2 * 2;
      lookup_pairs(codes + (begin + i) / 2, whole, table, scale, out + i);
      if (i + whole < n) out[n - 1] = blocks::four_bits(table, codes, end - 1, scale);
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
