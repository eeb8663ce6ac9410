#include "models/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

namespace retort {
namespace {

at::Tensor inverse_rms(const at::Tensor& x, double eps) { return x.square().mean(-1, true).add_(eps).rsqrt_(); }

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::toOpMathType(x.scalar_type()));
  return (wide * inverse_rms(wide, eps)).to(x.scalar_type()).mul_(weight);
}

at::Tensor rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& dy,
                             const at::Tensor& residual) {
  const auto type = at::toOpMathType(x.scalar_type());
  const at::Tensor wide = x.to(type), inverse = inverse_rms(wide, eps), g = dy.to(type) * weight;
  const at::Tensor normed = wide * inverse;
  at::Tensor dx = (g - normed * (g * normed).mean(-1, true)).mul_(inverse);
  if (residual.defined()) dx.add_(residual);
  return dx.to(x.scalar_type());
}

}  // namespace retort
