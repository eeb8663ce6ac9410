// What CUDA's kernels do with a quantized weight in device memory. no_kernels.cpp has the same functions for builds
// without CUDA.
#pragma once

#include <cstdint>

#include "quant/cuda/decoders.h"

namespace retort::kernels {

enum class Form { q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, four_bits, int8_rows, int8_blocks };
enum class Float { f32, f16, bf16 };

/// All pointers are device memory.
struct Weight {
  Form form = Form::q4_0;
  const uint8_t* codes = nullptr;
  const float* table = nullptr;  ///< what the codes of four_bits and int8_blocks stand for
  blocks::Scales scales = {};    ///< of bitsandbytes' forms
  int64_t columns = 0;           ///< a multiple of 8
};

/// Whether this build has the kernels.
bool built();

/// The most tokens that multiply() takes.
inline constexpr int64_t most_tokens = 16;

/// out[i] = row rows[i] of the weight, or row first + i when `rows` is nullptr; `count` rows, contiguous. Each function
/// launches on `stream` (a cudaStream_t) of the current device and returns CUDA's message when it could not.
const char* dequantize(const Weight& weight, const int64_t* rows, int64_t first, int64_t count, Float type, void* out,
                       void* stream);

/// y = x Wᵀ for 1 to most_tokens tokens: weights are decoded in registers, sums are f32. `rows` is W's; strides count
/// elements; rows of x begin at multiples of 16 bytes.
const char* multiply(const Weight& weight, int64_t rows, Float type, const void* x, int64_t x_stride, int64_t tokens,
                     void* y, int64_t y_stride, void* stream);

}  // namespace retort::kernels
