// The head and a loss in one, a chunk of tokens at a time: tokens x vocabulary never exists.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "models/linear.h"

namespace retort {

/// Tokens whose logits exist at the same time.
inline constexpr int64_t default_chunk = 256;

/// A loss of logits [n, V], which are those of rows [begin, begin + n) of the rows that take part: returns its sum,
/// f64, and turns the logits into d sum / d logits.
using LogitsLoss = std::function<at::Tensor(int64_t begin, const at::Tensor& logits)>;

/// The sum of a loss of head(hidden), a scalar in f32 (f64 for f64 hidden) that is differentiable by hidden and by the
/// head's adapter; a frozen head gets no gradient. hidden [T, dim]; `rows` i64, ascending: those that take part. The
/// loss is called once for each chunk, in order, with logits in the scalar's type.
at::Tensor linear_loss(const Linear& head, const at::Tensor& hidden, const at::Tensor& rows, const LogitsLoss& loss,
                       int64_t chunk = default_chunk);
/// The same in chunks that end at `ends`, ascending to the number of rows.
at::Tensor linear_loss(const Linear& head, const at::Tensor& hidden, const at::Tensor& rows, const LogitsLoss& loss,
                       const std::vector<int64_t>& ends);

/// Sum over labels >= 0 of -log softmax(head(hidden))[label] in nats, f32 (f64 for f64 hidden), a scalar that is
/// differentiable by hidden and by the head's adapter. hidden [T, dim], labels i64 [T]; rows with a negative label cost
/// nothing.
at::Tensor linear_cross_entropy(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                                int64_t chunk = default_chunk);

/// head(hidden) in f32 (f64 for f64 hidden) [n, vocabulary]; differentiable like linear_cross_entropy.
at::Tensor head_logits(const Linear& head, const at::Tensor& hidden);

}  // namespace retort
