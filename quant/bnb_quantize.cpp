#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mean.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/simd.h"
#include "quant/bnb.h"

namespace retort {
namespace {

/// bitsandbytes' block sizes: its layers' for 4 bits, its optimizers' for 8.
constexpr int64_t block_4bit = 64, block_8bit = 256;
constexpr int64_t longest_block = 256;

/// Between two neighbouring values in sorted order: a weight takes the upper one only when it lies strictly above.
constexpr std::array<float, 15> midpoints(std::array<float, 16> table) {
  std::sort(table.begin(), table.end());
  std::array<float, 15> middle{};
  for (size_t i = 0; i < 15; ++i) middle[i] = (table[i] + table[i + 1]) / 2;
  return middle;
}

/// The code of the n-th smallest value of fp4's table; zero comes before minus zero, which takes what lies above it.
constexpr std::array<uint8_t, 16> fp4_order = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

/// Bits of the largest |x|: as integers they sort like the numbers, with infinity and NaN above all.
RETORT_INLINE int32_t largest_bits(const float* x, int64_t n) {
  int32_t top = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    top = bits > top ? bits : top;
  }
  return top;
}

constexpr int32_t infinity_bits = 0x7f800000;

/// How many of the bounds lie strictly below y.
template <size_t... I>
RETORT_INLINE int32_t rank(float y, const std::array<float, 15>& bounds, std::index_sequence<I...>) {
  return (static_cast<int32_t>(y > bounds[I]) + ...);
}

/// Codes of a block, one a byte, as ranks in the sorted table.
RETORT_INLINE void ranks(const float* x, int64_t n, float factor, const std::array<float, 15>& bounds, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<uint8_t>(rank(x[i] * factor, bounds, std::make_index_sequence<15>()));
}

/// Whole blocks; returns false when a weight is not finite.
RETORT_SIMD bool quantize_4bit(const float* x, int64_t blocks, const std::array<float, 15>& table, uint8_t* codes,
                               float* absmax) {
  const std::array<float, 15> bounds = table;  // a copy that nothing else can change
  uint8_t rank_of[block_4bit];
  int32_t top = 0;
  for (int64_t b = 0; b < blocks; ++b, x += block_4bit, codes += block_4bit / 2) {
    const int32_t bits = largest_bits(x, block_4bit);
    top = bits > top ? bits : top;
    absmax[b] = std::bit_cast<float>(bits);
    ranks(x, block_4bit, 1.0f / std::max(absmax[b], 1e-38f), bounds, rank_of);
    for (int64_t i = 0; i < block_4bit / 2; ++i)
      codes[i] = static_cast<uint8_t>(rank_of[2 * i] << 4 | rank_of[2 * i + 1]);
  }
  return top < infinity_bits;
}

/// The short block at the end, which bitsandbytes divides by the scale.
bool quantize_4bit_rest(const float* x, int64_t n, const std::array<float, 15>& bounds, uint8_t* codes, float& absmax) {
  const int32_t bits = largest_bits(x, n);
  absmax = std::max(std::bit_cast<float>(bits), 1e-38f);
  for (int64_t i = 0; i < n; i += 2) {
    const auto code = [&](float y) { return rank(y / absmax, bounds, std::make_index_sequence<15>()); };
    codes[i / 2] = static_cast<uint8_t>(code(x[i]) << 4 | code(i + 1 < n ? x[i + 1] : 0.0f));
  }
  return bits < infinity_bits;
}

/// Ranks in fp4's sorted table to its codes, two a byte.
void to_fp4(uint8_t* codes, int64_t n) {
  static const auto table = [] {
    std::array<uint8_t, 256> pairs{};
    for (size_t i = 0; i < 256; ++i) pairs[i] = static_cast<uint8_t>(fp4_order[i >> 4] << 4 | fp4_order[i & 15]);
    return pairs;
  }();
  for (int64_t i = 0; i < n; ++i) codes[i] = table[codes[i]];
}

/// bitsandbytes finds the nearest value of a map through a table over [-1, 1] in 65,536 steps.
const std::array<uint8_t, 65536>& nearest_code() {
  static const auto codes = [] {
    const std::array<float, 256>& map = signed_dynamic_map();
    std::array<uint8_t, 65536> nearest{};
    size_t code = 0;
    for (int i = 0; i < 65536; ++i) {
      const float value = -1.0f + (2.0f * static_cast<float>(i)) / 65535;
      while (code < 255 && 0.5f * (map[code] + map[code + 1]) < value) ++code;
      nearest[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
    }
    return nearest;
  }();
  return codes;
}

/// Positions in nearest_code() of a block divided by its scale. The fused operation is in bitsandbytes' program too.
RETORT_SIMD int32_t dynamic_positions(const float* x, int64_t n, uint16_t* position) {
  const int32_t bits = largest_bits(x, n);
  if (bits == 0 || bits >= infinity_bits) return bits;
  const float factor = 1.0f / std::bit_cast<float>(bits);
  for (int64_t i = 0; i < n; ++i) {
    float y = x[i] * factor;
    y = y > -1.0f ? y : -1.0f;
    y = y > 1.0f ? 1.0f : y;
    position[i] = static_cast<uint16_t>(static_cast<int32_t>(std::fma((y + 1.0f) * 0.5f, 65535.0f, 0.5f)));
  }
  return bits;
}

/// One block in the signed dynamic map; returns the bits of its scale.
int32_t quantize_dynamic(const float* x, int64_t n, uint8_t* codes) {
  uint16_t position[longest_block];
  const int32_t bits = dynamic_positions(x, n, position);
  const std::array<uint8_t, 65536>& nearest = nearest_code();
  if (bits == 0) {
    std::fill_n(codes, n, uint8_t{0});  // bitsandbytes' choice: any code stands for 0 then
  } else if (bits < infinity_bits) {
    for (int64_t i = 0; i < n; ++i) codes[i] = nearest[position[i]];
  }
  return bits;
}

/// One row of LLM.int8.
RETORT_SIMD int32_t quantize_row(const float* x, int64_t n, float* rounded, int8_t* codes) {
  const int32_t bits = largest_bits(x, n);
  const float factor = bits == 0 ? 0.0f : 1.0f / std::bit_cast<float>(bits) * 127.0f;
  for (int64_t i = 0; i < n; ++i) rounded[i] = x[i] * factor + 12582912.0f;  // 1.5 * 2^23: rounds to nearest even
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<int8_t>(static_cast<int32_t>(rounded[i] - 12582912.0f));
  return bits;
}

/// Calls `quantize(first, last)` on ranges of blocks in parallel; it returns whether all weights were finite.
template <typename F>
void for_blocks(const std::string& name, int64_t blocks, int64_t block, const F& quantize) {
  std::atomic<bool> finite = true;
  const int64_t grain = std::max<int64_t>(1, 32768 / block);
  at::parallel_for(0, blocks, grain, [&](int64_t first, int64_t last) {
    if (!quantize(first, last)) finite = false;
  });
  if (!finite) fail(Exit::bad_input, "tensor {}: a weight is not finite (int8: in f16); it cannot be quantized", name);
}

}  // namespace

BnbWeights bnb_quantize(const std::string& name, std::span<const float> weight, int64_t columns,
                        const BnbOptions& options) {
  const auto n = static_cast<int64_t>(weight.size());
  BnbWeights result;
  BnbState& state = result.state;
  state.format = options.format;
  result.codes.resize(bnb_code_bytes(options.format, weight.size()));
  uint8_t* const codes = result.codes.data();
  const float* const x = weight.data();
  const bool four_bits = options.format == BnbFormat::nf4 || options.format == BnbFormat::fp4;
  state.block = four_bits ? block_4bit : options.format == BnbFormat::int8_rows ? columns : block_8bit;
  const int64_t block = state.block, whole = n / block, blocks = whole + (n % block != 0);
  state.absmax.resize(static_cast<size_t>(blocks));
  float* const absmax = state.absmax.data();

  if (four_bits) {
    const bool fp4 = options.format == BnbFormat::fp4;
    const std::array<float, 15> bounds = midpoints(bnb_table(options.format));
    for_blocks(name, blocks, block, [&](int64_t first, int64_t last) {
      const int64_t end = std::min(last, whole);
      bool finite = quantize_4bit(x + first * block, end - first, bounds, codes + first * block / 2, absmax + first);
      if (last > whole)
        finite &= quantize_4bit_rest(x + whole * block, n % block, bounds, codes + whole * block / 2, absmax[whole]);
      if (fp4) to_fp4(codes + first * block / 2, (std::min(last * block, n) - first * block + 1) / 2);
      return finite;
    });
    if (options.double_quantization) bnb_quantize_scales(state);
  } else if (options.format == BnbFormat::int8_blocks) {
    for_blocks(name, blocks, block, [&](int64_t first, int64_t last) {
      bool finite = true;
      for (int64_t b = first; b < last; ++b) {
        const int32_t bits = quantize_dynamic(x + b * block, std::min(block, n - b * block), codes + b * block);
        absmax[b] = std::bit_cast<float>(bits);
        finite &= bits < infinity_bits;
      }
      return finite;
    });
  } else {
    for_blocks(name, blocks, block, [&](int64_t first, int64_t last) {
      bool finite = true;
      std::vector<float> row(static_cast<size_t>(columns)), rounded(row.size());
      for (int64_t b = first; b < last; ++b) {
        for (int64_t i = 0; i < columns; ++i) row[static_cast<size_t>(i)] = static_cast<c10::Half>(x[b * columns + i]);
        const int32_t bits =
            quantize_row(row.data(), columns, rounded.data(), reinterpret_cast<int8_t*>(codes) + b * columns);
        absmax[b] = std::bit_cast<float>(bits);
        finite &= bits < infinity_bits;
      }
      return finite;
    });
  }
  return result;
}

void bnb_quantize_scales(BnbState& state) {
  const std::vector<float> scales = std::move(state.absmax);
  const auto n = static_cast<int64_t>(scales.size());
  state.offset = at::from_blob(const_cast<float*>(scales.data()), {n}, at::kFloat).mean().item<float>();
  state.nested_map.assign(signed_dynamic_map().begin(), signed_dynamic_map().end());
  state.nested_block = block_8bit;
  state.nested.resize(scales.size());
  state.absmax.assign(static_cast<size_t>((n + block_8bit - 1) / block_8bit), 0.0f);
  float centred[block_8bit];
  for (int64_t b = 0; b * block_8bit < n; ++b) {
    const int64_t begin = b * block_8bit, count = std::min(block_8bit, n - begin);
    for (int64_t i = 0; i < count; ++i) centred[i] = scales[static_cast<size_t>(begin + i)] - state.offset;
    const int32_t bits = quantize_dynamic(centred, count, state.nested.data() + begin);
    state.absmax[static_cast<size_t>(b)] = std::bit_cast<float>(bits);
  }
}

}  // namespace retort
