// Weights as bitsandbytes stores them, to the bit: NF4 and FP4 with or without double quantization, int8 by rows
// (LLM.int8) and by blocks. Source: bitsandbytes 0.50, backends/default/ops.py and csrc/cpu_ops.cpp.
#pragma once

#include <c10/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace retort {

enum class BnbFormat {
  nf4,         ///< 16 quantiles of a normal distribution
  fp4,         ///< sign, two bits of exponent, one of mantissa
  int8_rows,   ///< LLM.int8: integers from -127 to 127, one scale a row
  int8_blocks  ///< 256 values that crowd at zero (the signed dynamic map), one scale a block
};

struct BnbOptions {
  BnbFormat format = BnbFormat::nf4;
  bool double_quantization = false;  ///< of the 4-bit formats: scales in 8 bits, 4.5 -> 4.127 bits a weight
};

/// The names of all formats, as bnb_name() gives them.
const std::vector<std::string>& bnb_names();
/// "nf4", "nf4_dq" (double quantization), "fp4", "fp4_dq", "int8" (by rows), "int8_blocks"; Error(usage) with these
/// names for another one.
BnbOptions bnb_options(const std::string& name);
std::string bnb_name(const BnbOptions& options);

/// The scales of codes. The weights, flattened row by row, are cut into blocks with one scale each; blocks may cross
/// rows, and the last may be short.
struct BnbState {
  BnbFormat format = BnbFormat::nf4;
  int64_t block = 64;                  ///< weights with one scale; int8_rows: the columns
  at::ScalarType dtype = at::kFloat;   ///< of the weights before; only written down again
  std::vector<float> absmax = {};      ///< one a block; double-quantized: one a nested_block of `nested`
  std::vector<uint8_t> nested = {};    ///< double-quantized: a code a block, of (scale - offset) / absmax
  std::vector<float> nested_map = {};  ///< what these 256 codes stand for
  int64_t nested_block = 256;
  float offset = 0;

  bool is_double() const { return !nested.empty(); }
};

struct BnbWeights {
  BnbState state;
  /// 4 bits: (n + 1) / 2 bytes, the first weight of two in the high half. int8_rows: int8. int8_blocks: codes.
  std::vector<uint8_t> codes;
};

/// Quantizes `weight` [rows, columns], in parallel. int8_rows rounds to f16 first, as bitsandbytes' layers do.
/// Error(bad_input) with `name` for weights that are not finite.
BnbWeights bnb_quantize(const std::string& name, std::span<const float> weight, int64_t columns,
                        const BnbOptions& options);

/// Quantizes the scales of a 4-bit state once more: in blocks of 256, after taking off their mean. The mean's last bit
/// depends on the order of its sum (LibTorch's, so that of bitsandbytes on the same kind of processor).
void bnb_quantize_scales(BnbState& state);

/// Weights [begin, end) of the flattened tensor: code * scale in f32. Serial.
void bnb_dequantize(const BnbState& state, const uint8_t* codes, int64_t begin, int64_t end, float* out);

/// Bytes of the codes of so many weights.
uint64_t bnb_code_bytes(BnbFormat format, uint64_t weights);

/// What the 16 codes of nf4 and fp4 stand for.
const std::array<float, 16>& bnb_table(BnbFormat format);
/// bitsandbytes' 8-bit map: sorted, -0.99297 to 1, 0 at 127.
const std::array<float, 256>& signed_dynamic_map();
/// The one of second moments: from 0 to 1.
const std::array<float, 256>& unsigned_dynamic_map();

/// Error(bad_input) with `name` unless scales and codes fit `rows` x `columns` weights and each scale is finite.
void check_bnb(const std::string& name, const BnbState& state, int64_t rows, int64_t columns, uint64_t code_bytes);

}  // namespace retort
