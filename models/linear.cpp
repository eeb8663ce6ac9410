#include "models/linear.h"

#include <ATen/ATen.h>

namespace retort {

void base_forward(const Linear& linear, const at::Tensor& x, const at::Tensor& y) { linear.weight.forward(x, y); }

void base_backward(const Linear& linear, const at::Tensor& dy, const at::Tensor& dx, bool add) {
  if (dx.defined()) linear.weight.backward(dy, dx, add);
}

void linear_forward(const Linear& linear, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept) {
  kept.clear();
  if (!linear.adapter) {
    base_forward(linear, x, y);
    if (linear.bias.defined()) y.add_(linear.bias);
    return;
  }
  linear.adapter->forward(linear, x, y, training, kept);
  if (const at::Tensor bias = linear.adapter->bias(linear.bias); bias.defined()) y.add_(bias);
}

void linear_backward(const Linear& linear, const at::Tensor& x, const at::Tensor& dy, const Kept& kept,
                     const at::Tensor& dx, bool add) {
  if (linear.adapter)
    linear.adapter->backward(linear, x, dy, kept, dx, add);
  else
    base_backward(linear, dy, dx, add);
}

}  // namespace retort
