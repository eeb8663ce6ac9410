#include "quant/bnb.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

constexpr std::array<float, 16> nf4 = {-1.0f,
                                       -0.6961928009986877f,
                                       -0.5250730514526367f,
                                       -0.39491748809814453f,
                                       -0.28444138169288635f,
                                       -0.18477343022823334f,
                                       -0.09105003625154495f,
                                       0.0f,
                                       0.07958029955625534f,
                                       0.16093020141124725f,
                                       0.24611230194568634f,
                                       0.33791524171829224f,
                                       0.44070982933044434f,
                                       0.5626170039176941f,
                                       0.7229568362236023f,
                                       1.0f};
constexpr std::array<float, 16> fp4 = {0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
                                       0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};

/// Point `i` of `count` from 0.1 to 1, as torch.linspace computes it in f32: each half from its own end, fused.
float linspace(int i, int count) {
  const float start = 0.1f, end = 1.0f, step = (end - start) / static_cast<float>(count - 1);
  return i < count / 2 ? std::fma(step, static_cast<float>(i), start)
                       : std::fma(-step, static_cast<float>(count - 1 - i), end);
}

std::array<float, 256> make_dynamic_map(bool is_signed) {
  std::array<float, 256> map{};
  size_t n = 0;
  for (int i = 0; i < 7; ++i) {
    const auto power = static_cast<float>(std::pow(10.0, i - 6));
    const int count = (1 << (is_signed ? i : i + 1)) + 1;
    for (int k = 0; k + 1 < count; ++k) {
      const float value = power * ((linspace(k, count) + linspace(k + 1, count)) / 2);
      map[n++] = value;
      if (is_signed) map[n++] = -value;
    }
  }
  map[n++] = 0.0f;
  map[n++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

static constexpr std::array<BnbOptions, 6> all_options = {{{BnbFormat::nf4, false},
                                                           {BnbFormat::nf4, true},
                                                           {BnbFormat::fp4, false},
                                                           {BnbFormat::fp4, true},
                                                           {BnbFormat::int8_rows, false},
                                                           {BnbFormat::int8_blocks, false}}};

const std::vector<std::string>& bnb_names() {
  static const auto names = [] {
    std::vector<std::string> all;
    for (const BnbOptions& options : all_options) all.push_back(bnb_name(options));
    return all;
  }();
  return names;
}

BnbOptions bnb_options(const std::string& name) {
  for (const BnbOptions& options : all_options)
    if (bnb_name(options) == name) return options;
  fail(Exit::usage, "\"{}\"; allowed: {}", name, fmt::join(bnb_names(), ", "));
}

std::string bnb_name(const BnbOptions& options) {
  if (options.format == BnbFormat::int8_rows) return "int8";
  if (options.format == BnbFormat::int8_blocks) return "int8_blocks";
  return std::string(options.format == BnbFormat::nf4 ? "nf4" : "fp4") + (options.double_quantization ? "_dq" : "");
}

uint64_t bnb_code_bytes(BnbFormat format, uint64_t weights) {
  const bool four_bits = format == BnbFormat::nf4 || format == BnbFormat::fp4;
  return four_bits ? weights / 2 + weights % 2 : weights;
}

const std::array<float, 16>& bnb_table(BnbFormat format) { return format == BnbFormat::fp4 ? fp4 : nf4; }

const std::array<float, 256>& signed_dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map(true);
  return map;
}

const std::array<float, 256>& unsigned_dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map(false);
  return map;
}

void check_bnb(const std::string& name, const BnbState& state, int64_t rows, int64_t columns, uint64_t code_bytes) {
  const auto weights = static_cast<uint64_t>(rows) * static_cast<uint64_t>(columns);
  if (const uint64_t expected = bnb_code_bytes(state.format, weights); code_bytes != expected)
    fail(Exit::bad_input, "tensor {}: {} bytes of codes, but {} x {} weights take {}", name, code_bytes, rows, columns,
         expected);
  if (state.block < 1) fail(Exit::bad_input, "tensor {}: blocks of {} weights", name, state.block);
  if (state.format == BnbFormat::int8_rows && state.block != columns)
    fail(Exit::internal, "tensor {}: blocks of {} weights in rows of {}", name, state.block, columns);
  const auto count = [](uint64_t n, int64_t block) {
    return n / static_cast<uint64_t>(block) + (n % static_cast<uint64_t>(block) != 0);
  };
  uint64_t scales = count(weights, state.block);
  if (state.is_double()) {
    if (state.nested.size() != scales)
      fail(Exit::bad_input, "tensor {}: {} quantized scales, but {} weights in blocks of {} have {}", name,
           state.nested.size(), weights, state.block, scales);
    if (state.nested_block < 1) fail(Exit::bad_input, "tensor {}: nested blocks of {}", name, state.nested_block);
    if (state.nested_map.size() != 256)
      fail(Exit::bad_input, "tensor {}: a nested map of {} values, expected 256", name, state.nested_map.size());
    for (const float value : state.nested_map)
      if (!std::isfinite(value)) fail(Exit::bad_input, "tensor {}: its nested map holds {}", name, value);
    if (!std::isfinite(state.offset))
      fail(Exit::bad_input, "tensor {}: the offset of its scales is {}", name, state.offset);
    scales = count(scales, state.nested_block);
  }
  if (state.absmax.size() != scales)
    fail(Exit::bad_input, "tensor {}: {} scales, but {} weights in blocks of {} have {}", name, state.absmax.size(),
         weights, state.block, scales);
  for (size_t i = 0; i < state.absmax.size(); ++i)
    if (!std::isfinite(state.absmax[i]))
      fail(Exit::bad_input, "tensor {}: scale {} of its blocks is {}", name, i, state.absmax[i]);
}

}  // namespace retort
