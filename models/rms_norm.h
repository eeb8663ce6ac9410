// Root-mean-square norm (https://arxiv.org/abs/1910.07467) over the last dimension.
#pragma once

#include <ATen/core/Tensor.h>

namespace retort {

/// x / sqrt(mean(x²) + eps) * weight; x [T, dim], weight [dim].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// d loss / dx for dy = d loss / dy, plus `residual` where it is defined: the gradient that goes around the norm. The
/// frozen weight gets none.
at::Tensor rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& dy,
                             const at::Tensor& residual);

}  // namespace retort
