#include "models/swiglu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "models/simd.h"

namespace retort {
namespace {

template <typename T>
RETORT_INLINE T sigmoid(T x) {
  return 1 / (1 + simd_exp(-x));
}

template <typename T>
RETORT_INLINE void forward_all(const T* gate, const T* up, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}
RETORT_SIMD void forward(const float* gate, const float* up, float* y, int64_t n) { forward_all(gate, up, y, n); }
RETORT_SIMD void forward(const double* gate, const double* up, double* y, int64_t n) { forward_all(gate, up, y, n); }

template <typename T>
RETORT_INLINE void backward_all(const T* dy, T* gate, T* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const T g = gate[i], u = up[i], s = sigmoid(g), d = dy[i] * s;
    gate[i] = d * u * (1 + g * (1 - s));
    up[i] = d * g;
  }
}
RETORT_SIMD void backward(const float* dy, float* gate, float* up, int64_t n) { backward_all(dy, gate, up, n); }
RETORT_SIMD void backward(const double* dy, double* gate, double* up, int64_t n) { backward_all(dy, gate, up, n); }

constexpr int64_t elements_a_task = 1 << 14;

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (!has_loops(gate)) return at::silu(gate).mul_(up);
  at::Tensor y = at::empty_like(gate);
  AT_DISPATCH_FLOATING_TYPES(gate.scalar_type(), "swiglu", [&] {
    const auto *g = gate.const_data_ptr<scalar_t>(), *u = up.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, gate.numel(), elements_a_task,
                     [&](int64_t begin, int64_t end) { forward(g + begin, u + begin, to + begin, end - begin); });
  });
  return y;
}

void swiglu_backward(const at::Tensor& dy, at::Tensor gate, at::Tensor up) {
  if (!has_loops(gate)) {
    const at::Tensor s = at::sigmoid(gate), d = dy * s;
    const at::Tensor dgate = d * up * (1 + gate * (1 - s));
    up.copy_(d * gate);
    gate.copy_(dgate);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(gate.scalar_type(), "swiglu_backward", [&] {
    const auto* d = dy.const_data_ptr<scalar_t>();
    auto *g = gate.mutable_data_ptr<scalar_t>(), *u = up.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, gate.numel(), elements_a_task,
                     [&](int64_t begin, int64_t end) { backward(d + begin, g + begin, u + begin, end - begin); });
  });
}

}  // namespace retort
