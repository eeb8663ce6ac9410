// Loops that the compiler vectorizes for the processor it runs on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/simd.h"

namespace retort {

/// f32 and f64 on the CPU have loops of their own here; everything else takes ATen's operators. Loops want contiguous
/// tensors.
inline bool has_loops(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

/// exp without branches, so that loops over it vectorize. Below e^-87 the result is e^-87 instead of less; NaN stays
/// NaN. Relative error 1e-7: Cephes' polynomial after reduction to |r| <= ln 2 / 2.
RETORT_INLINE float simd_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the low bits now hold the nearest integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // n ln 2 in two parts, the first exact
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int32_t>(static_cast<uint32_t>(bits) << 23) + 0x3f800000;  // 2^n
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}
RETORT_INLINE double simd_exp(double x) { return std::exp(x); }

/// log of a normal positive number without branches; NaN gives NaN. Absolute error 1e-7: Cephes' polynomial on
/// [sqrt(1/2), sqrt(2)).
RETORT_INLINE float simd_log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  // The exponent for which the fraction lies in that interval: 0x3f3504f3 is sqrt(1/2).
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;
  bits -= static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23);
  float fraction;
  std::memcpy(&fraction, &bits, sizeof fraction);
  const float n = static_cast<float>(exponent), r = fraction - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * r - 1.1514610310e-1f;
  p = p * r + 1.1676998740e-1f;
  p = p * r - 1.2420140846e-1f;
  p = p * r + 1.4249322787e-1f;
  p = p * r - 1.6668057665e-1f;
  p = p * r + 2.0000714765e-1f;
  p = p * r - 2.4999993993e-1f;
  p = p * r + 3.3333331174e-1f;
  const float square = r * r;
  return r + (p * r * square - 0.5f * square + n * -2.12194440e-4f) + n * 0.693359375f + (x - x);
}
RETORT_INLINE double simd_log(double x) { return std::log(x); }

/// Sums below run in 16 partial sums, so that they vectorize although the compiler may not reorder additions.
inline constexpr int64_t simd_lanes = 16;

template <typename T>
RETORT_INLINE T simd_dot(const T* a, const T* b, int64_t n) {
  T lane[simd_lanes] = {};
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) lane[l] += a[i + l] * b[i + l];
  T sum = 0;
  for (const T value : lane) sum += value;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Largest of n >= 1 values; a NaN in the first place stays.
template <typename T>
RETORT_INLINE T simd_max(const T* x, int64_t n) {
  T lane[simd_lanes];
  for (T& value : lane) value = x[0];
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  T top = lane[0];
  for (const T value : lane) top = value > top ? value : top;
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

/// x becomes exp(x - shift); returns the sum.
template <typename T>
RETORT_INLINE double simd_exp_sum(T* x, int64_t n, T shift) {
  T lane[simd_lanes] = {};
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) {
      const T e = simd_exp(x[i + l] - shift);
      x[i + l] = e;
      lane[l] += e;
    }
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(x[i] = simd_exp(x[i] - shift));
  for (const T value : lane) sum += static_cast<double>(value);
  return sum;
}

}  // namespace retort
