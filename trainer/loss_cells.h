// Makes the loops of a separable loss from one formula.
#pragma once

#include <ATen/ATen.h>

#include "models/simd.h"
#include "trainer/loss.h"

namespace retort {

/// d and slope of a cell (or of all cells, when X is a tensor).
template <typename X>
struct Term {
  X value, slope;
};

inline at::Tensor log_of(const at::Tensor& x) { return x.log(); }
inline at::Tensor sign_of(const at::Tensor& x) { return x.sign(); }
RETORT_INLINE float log_of(float x) { return simd_log(x); }
RETORT_INLINE double log_of(double x) { return simd_log(x); }
template <typename T>
RETORT_INLINE T sign_of(T x) {
  return static_cast<T>(x > 0) - static_cast<T>(x < 0) + x * 0;  // NaN stays
}

template <typename Formula, typename T>
RETORT_INLINE CellSums cell_sums(const T* log_p, const T* log_q, int64_t n, const LossCoefficients& coefficients,
                                 T* __restrict slope) {
  const std::array<T, 3> k{static_cast<T>(coefficients[0]), static_cast<T>(coefficients[1]),
                           static_cast<T>(coefficients[2])};
  T values[simd_lanes] = {}, slopes[simd_lanes] = {};
  const auto cell = [&](int64_t i) __attribute__((always_inline)) {
    return Formula::term(log_p[i], log_q[i], simd_exp(log_p[i]), simd_exp(log_q[i]), k);
  };
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) {
      const Term<T> term = cell(i + l);
      slope[i + l] = term.slope;
      values[l] += term.value;
      slopes[l] += term.slope;
    }
  for (; i < n; ++i) {
    const Term<T> term = cell(i);
    slope[i] = term.slope;
    values[0] += term.value;
    slopes[0] += term.slope;
  }
  CellSums sums;
  for (int64_t l = 0; l < simd_lanes; ++l) {
    sums.value += static_cast<double>(values[l]);
    sums.slope += static_cast<double>(slopes[l]);
  }
  return sums;
}

/// Defines the functions of CellLoops for a struct Formula with
///   template <typename X, typename S>
///   RETORT_INLINE static Term<X> term(const X& log_p, const X& log_q, const X& p, const X& q, const std::array<S, 3>&
///   k)
/// in arithmetic, log_of and sign_of alone, so that it holds for numbers and tensors.
#define RETORT_CELL_LOOPS(Formula)                                                                               \
  RETORT_SIMD CellSums cells_f32(const float* log_p, const float* log_q, int64_t n, const LossCoefficients& k,   \
                                 float* slope) {                                                                 \
    return cell_sums<Formula>(log_p, log_q, n, k, slope);                                                        \
  }                                                                                                              \
  RETORT_SIMD CellSums cells_f64(const double* log_p, const double* log_q, int64_t n, const LossCoefficients& k, \
                                 double* slope) {                                                                \
    return cell_sums<Formula>(log_p, log_q, n, k, slope);                                                        \
  }                                                                                                              \
  std::pair<at::Tensor, at::Tensor> cells_tensors(const at::Tensor& log_p, const at::Tensor& log_q,              \
                                                  const LossCoefficients& k) {                                   \
    Term<at::Tensor> term = Formula::term(log_p, log_q, log_p.exp(), log_q.exp(), k);                            \
    return {std::move(term.value), std::move(term.slope)};                                                       \
  }

}  // namespace retort
