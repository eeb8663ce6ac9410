// A quantized weight in a device's memory, in the same bytes as on the host: NF4, FP4, int8 and ggml's Q types.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "quant/cuda/kernels.h"
#include "quant/quantized_tensor.h"

namespace retort {

class DeviceWeight {
 public:
  /// Whether the kernels read this tensor's form and shape.
  static bool supports(const QuantizedTensor& tensor);

  /// Copies the bytes to `device`, a CUDA device. Error(internal) for what is not supported.
  DeviceWeight(const QuantizedTensor& tensor, at::Device device);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return weight_.columns; }
  at::Device device() const { return codes_.device(); }
  int64_t bytes() const;  ///< of device memory

  /// Rows [begin, end) into `out`: contiguous [end - begin, columns], f32, f16 or bf16, on this device. The same
  /// weights as QuantizedTensor gives, rounded once. Runs on the current stream.
  void dequantize_rows(int64_t begin, int64_t end, const at::Tensor& out) const;
  /// The rows of these indices, i64 on this device.
  at::Tensor rows_at(const at::Tensor& indices, at::ScalarType dtype) const;

  /// Whether multiply() takes this x: few tokens, rows that begin at multiples of 16 bytes.
  bool multiplies(const at::Tensor& x) const;
  /// y = x Wᵀ without dequantized weights in memory; x [T, columns], y [T, rows].
  void multiply(const at::Tensor& x, const at::Tensor& y) const;

 private:
  void check(const char* error) const;

  std::string name_;
  int64_t rows_ = 0;
  at::Tensor codes_, table_, absmax_, nested_, map_;  ///< what weight_ points into
  kernels::Weight weight_;
};

}  // namespace retort
