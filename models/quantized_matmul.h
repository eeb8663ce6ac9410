// Products with a frozen matrix in its file's own blocks, which is dequantized a tile at a time: it never exists dense,
// and what exists of it at a moment fits the caches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/device_weight.h"
#include "quant/quantized_tensor.h"

namespace retort {

/// y = x Wᵀ; x [T, columns of W], y [T, rows of W]; rows contiguous, both of one type and on one device.
void matmul_transposed(const at::Tensor& x, const QuantizedTensor& w, const at::Tensor& y);

/// dx = dy W, or dx += dy W with `add`; dy [T, rows of W], dx [T, columns of W].
void matmul(const at::Tensor& dy, const QuantizedTensor& w, const at::Tensor& dx, bool add = false);

/// The same with a weight in device memory. Up to 16 tokens multiply with it in its blocks; for more, tiles are
/// dequantized in device memory and go into cuBLAS.
void matmul_transposed(const at::Tensor& x, const DeviceWeight& w, const at::Tensor& y);
void matmul(const at::Tensor& dy, const DeviceWeight& w, const at::Tensor& dx, bool add = false);

/// The most bytes that tiles of a matrix with so many columns take at a moment.
int64_t tile_bytes(int64_t columns, at::ScalarType dtype, at::Device device = at::kCPU);

}  // namespace retort
