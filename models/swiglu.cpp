#include "models/swiglu.h"

#include <ATen/ATen.h>

namespace retort {

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate).mul_(up); }

void swiglu_backward(const at::Tensor& dy, at::Tensor gate, at::Tensor up) {
  const at::Tensor s = at::sigmoid(gate);
  const at::Tensor dgate = dy * up * s * (1 + gate * (1 - s));
  up.copy_(dy * gate * s);
  gate.copy_(dgate);
}

}  // namespace retort
