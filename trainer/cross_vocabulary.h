// Objectives for a teacher whose tokens are not the student's.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "distill/paired_texts.h"
#include "trainer/distillation.h"

namespace retort {

/// Sum over spans of KL(Bernoulli(P) || Bernoulli(Q)) in nats: P is the teacher's probability of the text that a span
/// covers, Q the student's, each the product of its tokens'. f32 (f64 for f64 hidden), differentiable by hidden [T,
/// dim] and by the head's adapter in closed form, a chunk of whole spans at a time. Probabilities within 1e-6 of 1
/// count as 1 - 1e-6. labels i64 [T] are the student's tokens at targets.rows.
at::Tensor linear_span_divergence(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                                  const SpanTargets& targets, int64_t chunk = default_chunk);

/// weight * linear_span_divergence. `state` gets the sums of "span_divergence" and "spans".
ObjectivePart spans_part(SpanSource source, double weight, std::shared_ptr<ObjectiveState> state,
                         const std::string& name = "");

/// weight * T² * uld at the positions where a token of both begins. `state` gets the sums of "divergence" and
/// "aligned".
ObjectivePart uld_part(RankedSource source, double weight, double temperature, std::shared_ptr<ObjectiveState> state,
                       const std::string& name = "");

}  // namespace retort
