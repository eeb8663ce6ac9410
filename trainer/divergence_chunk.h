// A chunk of rows of linear_divergence, and the two ways to do it.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/divergence.h"

namespace retort {

/// Columns of DivergenceChunk::measured, in DivergenceRows's order.
enum Measured : int64_t { kDivergence, kCrossEntropy, kAgrees, kTailMass, kTailDivergence, kMeasured };

struct DivergenceChunk {
  at::Tensor logits;    ///< f32 or f64 [n, V]; becomes d loss / d logits
  at::Tensor labels;    ///< i64 [n]
  at::Tensor dense;     ///< the teacher's logits in the same type [n, V] (any width for a loss over ranks), or
  Partition partition;  ///< its rows, contiguous, on the logits' device
  at::Tensor measured;  ///< f64 [n, kMeasured], to be written
};

/// Rows in parallel on the CPU; for separable losses.
void divergence_by_loops(const DivergenceChunk& chunk, const DivergenceOptions& options);
/// ATen's operators, for every device and every kind.
void divergence_by_operators(const DivergenceChunk& chunk, const DivergenceOptions& options);

}  // namespace retort
