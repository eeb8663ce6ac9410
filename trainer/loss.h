// Losses between a teacher's distribution and a student's, and the table of kinds.
//
// A separable loss is a sum over the cells of a partition of the vocabulary, which are single tokens or several: with
// the teacher's mass P_c and the student's Q_c in cell c it is sum_c d(P_c, Q_c). With slope_c = Q_c dd/dQ_c, its
// gradient by the logit of token j in cell c, whose probability is q_j, is
//
//   dL/dz_j = q_j / Q_c * (slope_c - Q_c * sum of all slopes) / T
//
// so one implementation (trainer/divergence.h) serves every kind, with all logits of the teacher or with few numbers.
// Probabilities below e^-87, the least that f32 holds, count as e^-87: so are losses finite where a teacher has no
// mass.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retort {

inline constexpr double lowest_log_probability = -87;

/// What a kind's formula reads: numbers that follow from its parameter.
using LossCoefficients = std::array<double, 3>;

/// A separable loss in three forms: loops over the n cells of a row, which write slope and return the sums over the row
/// of d and of slope, and ATen's operators, which give d and slope of every cell. RETORT_CELL_LOOPS in
/// trainer/loss_cells.h makes all three of one formula.
struct CellSums {
  double value = 0, slope = 0;
};
struct CellLoops {
  CellSums (*f32)(const float* log_p, const float* log_q, int64_t n, const LossCoefficients& k, float* slope);
  CellSums (*f64)(const double* log_p, const double* log_q, int64_t n, const LossCoefficients& k, double* slope);
  std::pair<at::Tensor, at::Tensor> (*tensors)(const at::Tensor& log_p, const at::Tensor& log_q,
                                               const LossCoefficients& k);
};

/// d = k[0] P log(P / M) + k[1] Q log(Q / M) with M = k[2] P + (1 - k[2]) Q: the Kullback-Leibler divergences, those of
/// Jensen and Shannon, and the skewed ones.
extern const CellLoops mixture_cells;

/// A kind's one number; no name: it has none.
struct LossParameter {
  const char* name = nullptr;
  double usual = 0, lowest = 0, highest = 0;  ///< what it is when not given, and its range
};

/// One kind of loss: trainer/losses/<name>.cpp defines `extern const LossKind loss_<name>`.
struct LossKind {
  const char* name;
  const char* summary;
  LossParameter parameter = {};
  const CellLoops* cells = nullptr;  ///< of a separable loss
  LossCoefficients (*coefficients)(double parameter) = [](double) { return LossCoefficients{}; };
  /// Of a loss that is not: its value [n] for probabilities q [n, V] of the student and p [n, any] of the teacher,
  /// whose mass outside p is `tail` [n]; q becomes d value / d q. Vocabularies may differ.
  at::Tensor (*whole)(at::Tensor& q, const at::Tensor& p, const at::Tensor& tail) = nullptr;
  /// Whether it grows without bound where the student has mass and the teacher none: of no use with the estimator
  /// `zero`, which makes such cells.
  bool (*needs_support)(double parameter) = [](double) { return false; };
  /// The target is softmax((1 - t) z_student + t z_teacher), without gradient; t is the parameter, scheduled.
  bool interpolates = false;
};

const std::vector<const LossKind*>& loss_kinds();
/// Error(usage) with "did you mean" when there is none.
const LossKind& loss_kind(const std::string& name);
std::vector<std::string> loss_names();

}  // namespace retort
