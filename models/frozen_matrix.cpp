#include "models/frozen_matrix.h"

#include <ATen/ATen.h>

#include "models/matmul.h"
#include "models/quantized_matmul.h"

namespace retort {

FrozenMatrix::FrozenMatrix(const QuantizedTensor& blocks, at::ScalarType dtype, at::Device device)
    : blocks_(std::make_shared<const QuantizedTensor>(blocks)), dtype_(dtype), device_(device) {}

int64_t FrozenMatrix::bytes() const {
  return static_cast<int64_t>(is_dense() ? dense_.nbytes() : blocks_->stored_bytes());
}

at::Tensor FrozenMatrix::operator()() const { return is_dense() ? dense_ : blocks_->dequantize(dtype_).to(device_); }

at::Tensor FrozenMatrix::rows(const at::Tensor& indices) const {
  if (is_dense()) return dense_.index_select(0, indices.to(dense_.device()));
  const at::Tensor on_cpu = indices.to(at::kCPU).contiguous();
  const at::Tensor rows = at::empty({indices.size(0), blocks_->columns()}, dtype_);
  const auto* index = on_cpu.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < indices.size(0); ++i)
    blocks_->dequantize_rows(index[i], index[i] + 1, rows.slice(0, i, i + 1));
  return rows.to(device_);
}

void FrozenMatrix::forward(const at::Tensor& x, const at::Tensor& y) const {
  if (is_dense()) return matmul(x, dense_.t(), y);
  matmul_transposed(x, *blocks_, y);
}

void FrozenMatrix::backward(const at::Tensor& dy, const at::Tensor& dx, bool add) const {
  if (is_dense()) return matmul(dy, dense_, dx, add);
  matmul(dy, *blocks_, dx, add);
}

}  // namespace retort
