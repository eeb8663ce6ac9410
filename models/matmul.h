// Matrix products of the frozen weights and of the adapters.
#pragma once

#include <ATen/core/Tensor.h>

namespace retort {

/// out = alpha * a b, or out += alpha * a b. a [m, k], b [k, n], out [m, n], all of one type; a and b may be transposed
/// views.
void matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, bool add = false, double alpha = 1);

}  // namespace retort
