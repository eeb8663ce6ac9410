// The head and the cross entropy in one, a chunk of tokens at a time: tokens x vocabulary never exists.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/linear.h"

namespace retort {

/// Tokens whose logits exist at the same time.
inline constexpr int64_t default_chunk = 256;

/// Sum over labels >= 0 of -log softmax(head(hidden))[label] in nats, f32 (f64 for f64 hidden), a scalar that is
/// differentiable by hidden and by the head's adapter. hidden [T, dim], labels i64 [T]; rows with a negative label cost
/// nothing.
at::Tensor linear_cross_entropy(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                                int64_t chunk = default_chunk);

/// head(hidden) in f32 (f64 for f64 hidden) [n, vocabulary]; differentiable like linear_cross_entropy.
at::Tensor head_logits(const Linear& head, const at::Tensor& hidden);

}  // namespace retort
