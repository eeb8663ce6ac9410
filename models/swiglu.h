// SwiGLU (https://arxiv.org/abs/2002.05202): silu(gate) * up.
#pragma once

#include <ATen/core/Tensor.h>

namespace retort {

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// Replaces gate and up by their gradients, for dy = d loss / dy.
void swiglu_backward(const at::Tensor& dy, at::Tensor gate, at::Tensor up);

}  // namespace retort
