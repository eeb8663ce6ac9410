// Compiled with -fmad=false, so that a weight is the one that ggml or bitsandbytes computes, to the bit; sums of
// products are fused by hand.
#include "quant/cuda/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

namespace retort::kernels {
namespace {

constexpr int threads = 256, warp = 32;

__device__ __forceinline__ void store(float* to, const float* eight) {
  reinterpret_cast<float4*>(to)[0] = make_float4(eight[0], eight[1], eight[2], eight[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(eight[4], eight[5], eight[6], eight[7]);
}

__device__ __forceinline__ void store(__half* to, const float* eight) {
  alignas(16) __half2 pairs[4];
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2half2_rn(eight[2 * i], eight[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}

__device__ __forceinline__ void store(__nv_bfloat16* to, const float* eight) {
  alignas(16) __nv_bfloat162 pairs[4];
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(eight[2 * i], eight[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}

__device__ __forceinline__ void load(const float* from, float* eight) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  eight[0] = a.x, eight[1] = a.y, eight[2] = a.z, eight[3] = a.w;
  eight[4] = b.x, eight[5] = b.y, eight[6] = b.z, eight[7] = b.w;
}

__device__ __forceinline__ void load(const __half* from, float* eight) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const auto* pairs = reinterpret_cast<const __half2*>(&bits);
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(pairs[i]);
    eight[2 * i] = pair.x, eight[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void load(const __nv_bfloat16* from, float* eight) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    eight[2 * i] = pair.x, eight[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void store_one(float* to, float value) { *to = value; }
__device__ __forceinline__ void store_one(__half* to, float value) { *to = __float2half_rn(value); }
__device__ __forceinline__ void store_one(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

/// Each thread decodes eight weights at a time.
template <typename Decoder, typename T>
__global__ void __launch_bounds__(threads)
    dequantize_kernel(Decoder decoder, const int64_t* rows, int64_t first, int64_t count, int64_t columns, T* out) {
  const int64_t eights = columns / 8, all = count * eights;
  for (int64_t i = blockIdx.x * int64_t{threads} + threadIdx.x; i < all; i += int64_t{gridDim.x} * threads) {
    const int64_t row = i / eights, column = i % eights * 8;
    float eight[8];
    decoder.eight((rows ? rows[row] : first + row) * columns + column, eight);
    store(out + row * columns + column, eight);
  }
}

/// A warp takes two rows of W, so that what it reads of x serves both; its lanes share the columns.
template <int Tokens, typename Decoder, typename T>
__global__ void __launch_bounds__(threads) multiply_kernel(Decoder decoder, int64_t rows, int64_t columns, const T* x,
                                                           int64_t x_stride, int tokens, T* y, int64_t y_stride) {
  constexpr int taken = 2;
  const int64_t row = (blockIdx.x * int64_t{threads / warp} + threadIdx.x / warp) * taken;
  const int lane = threadIdx.x % warp;
  if (row >= rows) return;
  float sums[taken][Tokens] = {};
  for (int64_t column = lane * 8; column < columns; column += warp * 8) {
    float weights[taken][8];
    for (int r = 0; r < taken; ++r) decoder.eight((row + r < rows ? row + r : row) * columns + column, weights[r]);
#pragma unroll
    for (int t = 0; t < Tokens; ++t) {
      if (t >= tokens) break;
      float inputs[8];
      load(x + t * x_stride + column, inputs);
#pragma unroll
      for (int r = 0; r < taken; ++r)
#pragma unroll
        for (int j = 0; j < 8; ++j) sums[r][t] = fmaf(inputs[j], weights[r][j], sums[r][t]);
    }
  }
#pragma unroll
  for (int r = 0; r < taken; ++r)
#pragma unroll
    for (int t = 0; t < Tokens; ++t) {
      float sum = sums[r][t];
      for (int apart = warp / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffff, sum, apart);
      if (lane == 0 && t < tokens && row + r < rows) store_one(y + t * y_stride + row + r, sum);
    }
}

/// Calls each(decoder) with the decoder of the weight's form.
template <typename Each>
void with_decoder(const Weight& w, const Each& each) {
  using namespace blocks;
  switch (w.form) {
    case Form::q4_0:
      return each(BlockDecoder<Q4_0>{w.codes});
    case Form::q4_1:
      return each(BlockDecoder<Q4_1>{w.codes});
    case Form::q5_0:
      return each(BlockDecoder<Q5_0>{w.codes});
    case Form::q5_1:
      return each(BlockDecoder<Q5_1>{w.codes});
    case Form::q8_0:
      return each(BlockDecoder<Q8_0>{w.codes});
    case Form::q2_k:
      return each(BlockDecoder<Q2_K>{w.codes});
    case Form::q3_k:
      return each(BlockDecoder<Q3_K>{w.codes});
    case Form::q4_k:
      return each(BlockDecoder<Q4_K>{w.codes});
    case Form::q5_k:
      return each(BlockDecoder<Q5_K>{w.codes});
    case Form::q6_k:
      return each(BlockDecoder<Q6_K>{w.codes});
    case Form::four_bits:
      return each(FourBitDecoder{w.codes, w.table, w.scales});
    case Form::int8_rows:
      return each(Int8RowsDecoder{w.codes, w.scales});
    case Form::int8_blocks:
      return each(Int8BlocksDecoder{w.codes, w.table, w.scales});
  }
}

/// Calls each(a null pointer of the type).
template <typename Each>
void with_float(Float type, const Each& each) {
  switch (type) {
    case Float::f32:
      return each(static_cast<float*>(nullptr));
    case Float::f16:
      return each(static_cast<__half*>(nullptr));
    case Float::bf16:
      return each(static_cast<__nv_bfloat16*>(nullptr));
  }
}

const char* launched() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

bool built() { return true; }

const char* dequantize(const Weight& weight, const int64_t* rows, int64_t first, int64_t count, Float type, void* out,
                       void* stream) {
  const int64_t work = (count * weight.columns / 8 + threads - 1) / threads;
  if (work == 0) return nullptr;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(work, 1 << 16));
  with_decoder(weight, [&](auto decoder) {
    with_float(type, [&](auto* typed) {
      dequantize_kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(
          decoder, rows, first, count, weight.columns, static_cast<decltype(typed)>(out));
    });
  });
  return launched();
}

const char* multiply(const Weight& weight, int64_t rows, Float type, const void* x, int64_t x_stride, int64_t tokens,
                     void* y, int64_t y_stride, void* stream) {
  constexpr int64_t rows_a_grid_block = threads / warp * 2;
  const auto grid = static_cast<unsigned>((rows + rows_a_grid_block - 1) / rows_a_grid_block);
  with_decoder(weight, [&](auto decoder) {
    with_float(type, [&](auto* typed) {
      using T = std::remove_pointer_t<decltype(typed)>;
      const auto launch = [&](auto kernel) {
        kernel<<<grid, threads, 0, static_cast<cudaStream_t>(stream)>>>(
            decoder, rows, weight.columns, static_cast<const T*>(x), x_stride, static_cast<int>(tokens),
            static_cast<T*>(y), y_stride);
      };
      using Decoder = decltype(decoder);
      if (tokens == 1)
        launch(multiply_kernel<1, Decoder, T>);
      else if (tokens <= 4)
        launch(multiply_kernel<4, Decoder, T>);
      else
        launch(multiply_kernel<16, Decoder, T>);
    });
  });
  return launched();
}

}  // namespace retort::kernels
