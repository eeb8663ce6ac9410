#include "models/linear.h"

#include <ATen/ATen.h>

#include "models/matmul.h"

namespace retort {

at::Tensor linear_forward(const Linear& linear, const at::Tensor& x, bool training, at::Tensor& saved) {
  at::Tensor y = at::empty({x.size(0), linear.out}, x.options());
  matmul(x, linear.weight().t(), y);
  if (linear.bias.defined()) y.add_(linear.bias);
  if (linear.adapter) saved = linear.adapter->forward(x, y, training);
  return y;
}

void linear_backward(const Linear& linear, const at::Tensor& x, const at::Tensor& dy, const at::Tensor& saved,
                     const at::Tensor& dx, bool add) {
  if (dx.defined()) matmul(dy, linear.weight(), dx, add);
  if (linear.adapter) linear.adapter->backward(x, dy, saved, dx);
}

}  // namespace retort
