// A frozen weight as products need it, whether it is dense or quantized.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "quant/device_weight.h"
#include "quant/quantized_tensor.h"

namespace retort {

/// W [rows, columns]. Quantized, it stays in its bytes, in the device's memory where there are kernels for its form,
/// and is dequantized a tile at a time in each product. Copies share what they hold.
class FrozenMatrix {
 public:
  FrozenMatrix() = default;
  FrozenMatrix(at::Tensor dense) : dense_(std::move(dense)) {}
  /// Products are computed in `dtype` on `device`.
  FrozenMatrix(const QuantizedTensor& blocks, at::ScalarType dtype, at::Device device);

  bool is_dense() const { return !blocks_ && !on_device_; }
  int64_t bytes() const;  ///< that it holds
  /// What it multiplies with on the host; nullptr when it is dense, or in a device's memory.
  const QuantizedTensor* blocks() const { return blocks_.get(); }
  /// The whole matrix, dense: for merges, norms and whoever else sees all of it at once.
  at::Tensor operator()() const;
  /// The rows of these indices, i64 [n] -> [n, columns].
  at::Tensor rows(const at::Tensor& indices) const;
  /// y = x Wᵀ; x [T, columns], y [T, rows].
  void forward(const at::Tensor& x, const at::Tensor& y) const;
  /// dx = dy W, or dx += dy W with `add`; dy [T, rows], dx [T, columns].
  void backward(const at::Tensor& dy, const at::Tensor& dx, bool add = false) const;

 private:
  at::Tensor dense_;
  std::shared_ptr<const QuantizedTensor> blocks_;  ///< on the host
  std::shared_ptr<const DeviceWeight> on_device_;  ///< instead of blocks_
  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
};

}  // namespace retort
