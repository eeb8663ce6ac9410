#include "models/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include "models/simd.h"

namespace retort {
namespace {

template <typename T>
RETORT_INLINE void forward_rows(const T* x, const T* weight, T* y, int64_t rows, int64_t n, T eps) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const T inverse = 1 / std::sqrt(simd_dot(x, x, n) / static_cast<T>(n) + eps);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * weight[i];
  }
}
RETORT_SIMD void forward(const float* x, const float* w, float* y, int64_t rows, int64_t n, float eps) {
  forward_rows(x, w, y, rows, n, eps);
}
RETORT_SIMD void forward(const double* x, const double* w, double* y, int64_t rows, int64_t n, double eps) {
  forward_rows(x, w, y, rows, n, eps);
}

template <typename T>
RETORT_INLINE void backward_rows(const T* x, const T* weight, const T* dy, const T* residual, T* dx, int64_t rows,
                                 int64_t n, T eps) {
  for (int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    const T inverse = 1 / std::sqrt(simd_dot(x, x, n) / static_cast<T>(n) + eps);
    for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] * weight[i];
    const T along = simd_dot(dx, x, n) * inverse * inverse * inverse / static_cast<T>(n);
    if (residual) {
      for (int64_t i = 0; i < n; ++i) dx[i] = dx[i] * inverse - x[i] * along + residual[i];
      residual += n;
    } else {
      for (int64_t i = 0; i < n; ++i) dx[i] = dx[i] * inverse - x[i] * along;
    }
  }
}
RETORT_SIMD void backward(const float* x, const float* w, const float* dy, const float* residual, float* dx,
                          int64_t rows, int64_t n, float eps) {
  backward_rows(x, w, dy, residual, dx, rows, n, eps);
}
RETORT_SIMD void backward(const double* x, const double* w, const double* dy, const double* residual, double* dx,
                          int64_t rows, int64_t n, double eps) {
  backward_rows(x, w, dy, residual, dx, rows, n, eps);
}

constexpr int64_t rows_a_task = 16;

/// The plain formulas, for other devices and types.
at::Tensor inverse_rms(const at::Tensor& x, double eps) { return x.square().mean(-1, true).add_(eps).rsqrt_(); }

at::Tensor generic(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::toOpMathType(x.scalar_type()));
  return (wide * inverse_rms(wide, eps)).to(x.scalar_type()).mul_(weight);
}

at::Tensor generic_backward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& dy,
                            const at::Tensor& residual) {
  const auto type = at::toOpMathType(x.scalar_type());
  const at::Tensor wide = x.to(type), inverse = inverse_rms(wide, eps), g = dy.to(type) * weight;
  const at::Tensor normed = wide * inverse;
  at::Tensor dx = (g - normed * (g * normed).mean(-1, true)).mul_(inverse);
  if (residual.defined()) dx.add_(residual);
  return dx.to(x.scalar_type());
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_loops(x)) return generic(x, weight, eps);
  at::Tensor y = at::empty_like(x);
  const int64_t n = x.size(1);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] {
    const auto *from = x.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, x.size(0), rows_a_task, [&](int64_t begin, int64_t end) {
      forward(from + begin * n, w, to + begin * n, end - begin, n, static_cast<scalar_t>(eps));
    });
  });
  return y;
}

at::Tensor rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& dy,
                             const at::Tensor& residual) {
  if (!has_loops(x)) return generic_backward(x, weight, eps, dy, residual);
  at::Tensor dx = at::empty_like(x);
  const int64_t n = x.size(1);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm_backward", [&] {
    const auto *input = x.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>(),
               *gradient = dy.const_data_ptr<scalar_t>(),
               *around = residual.defined() ? residual.const_data_ptr<scalar_t>() : nullptr;
    auto* to = dx.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, x.size(0), rows_a_task, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * n;
      backward(input + at, w, gradient + at, around ? around + at : nullptr, to + at, end - begin, n,
               static_cast<scalar_t>(eps));
    });
  });
  return dx;
}

}  // namespace retort
