#include "models/frozen_matrix.h"

#include <ATen/ATen.h>

#include "models/matmul.h"
#include "models/quantized_matmul.h"

namespace retort {

FrozenMatrix::FrozenMatrix(const QuantizedTensor& blocks, at::ScalarType dtype, at::Device device)
    : dtype_(dtype), device_(device) {
  if (device.is_cuda() && kernels::built() && dtype != at::kDouble && DeviceWeight::supports(blocks))
    on_device_ = std::make_shared<const DeviceWeight>(blocks, device);
  else
    blocks_ = std::make_shared<const QuantizedTensor>(blocks);
}

int64_t FrozenMatrix::bytes() const {
  if (is_dense()) return static_cast<int64_t>(dense_.nbytes());
  return on_device_ ? on_device_->bytes() : static_cast<int64_t>(blocks_->stored_bytes());
}

at::Tensor FrozenMatrix::operator()() const {
  if (is_dense()) return dense_;
  if (!on_device_) return blocks_->dequantize(dtype_).to(device_);
  const at::Tensor all =
      at::empty({on_device_->rows(), on_device_->columns()}, at::TensorOptions(device_).dtype(dtype_));
  on_device_->dequantize_rows(0, on_device_->rows(), all);
  return all;
}

at::Tensor FrozenMatrix::rows(const at::Tensor& indices) const {
  if (is_dense()) return dense_.index_select(0, indices.to(dense_.device()));
  if (on_device_) return on_device_->rows_at(indices, dtype_);
  const at::Tensor on_cpu = indices.to(at::kCPU).contiguous();
  const at::Tensor rows = at::empty({indices.size(0), blocks_->columns()}, dtype_);
  const auto* index = on_cpu.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < indices.size(0); ++i)
    blocks_->dequantize_rows(index[i], index[i] + 1, rows.slice(0, i, i + 1));
  return rows.to(device_);
}

void FrozenMatrix::forward(const at::Tensor& x, const at::Tensor& y) const {
  if (is_dense()) return matmul(x, dense_.t(), y);
  if (on_device_) return matmul_transposed(x, *on_device_, y);
  matmul_transposed(x, *blocks_, y);
}

void FrozenMatrix::backward(const at::Tensor& dy, const at::Tensor& dx, bool add) const {
  if (is_dense()) return matmul(dy, dense_, dx, add);
  if (on_device_) return matmul(dy, *on_device_, dx, add);
  matmul(dy, *blocks_, dx, add);
}

}  // namespace retort
