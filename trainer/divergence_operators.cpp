#include <ATen/ATen.h>

#include <tuple>

#include "trainer/divergence_chunk.h"

namespace retort {
namespace {

/// A loss by the student's probabilities: its value and d value / d log q, of whatever the logits are at temperature T.
struct Divergence {
  at::Tensor value, tail;  ///< [n]
  at::Tensor gradient;     ///< [n, V]: d value / d (logits / T)
};

Divergence of_whole(const DivergenceChunk& chunk, const DivergenceOptions& options) {
  const at::Tensor q = at::softmax(chunk.logits / options.temperature, 1);
  at::Tensor p, tail;
  if (chunk.dense.defined()) {
    p = at::softmax(chunk.dense / options.temperature, 1);
    tail = at::zeros_like(p.select(1, 0));
  } else {
    p = chunk.partition.log_p.exp().masked_fill(chunk.partition.ids < 0, 0).to(q.scalar_type());
    tail = chunk.partition.log_mass.exp().sum(1).to(q.scalar_type());
  }
  at::Tensor slope = q.clone();
  at::Tensor value = options.loss->whole(slope, p, tail);
  return {value, at::zeros_like(value), q * (slope - (q * slope).sum(1, true))};
}

/// log p of the target between the two.
at::Tensor interpolated(const at::Tensor& log_p, const at::Tensor& log_q, double t) {
  return at::log_softmax(log_q * (1 - t) + log_p * t, 1);
}

Divergence of_tokens(const DivergenceChunk& chunk, const DivergenceOptions& options) {
  const auto log_probabilities = [&](const at::Tensor& logits) {
    return at::log_softmax(logits / options.temperature, 1).clamp_min(lowest_log_probability);
  };
  const at::Tensor log_q = log_probabilities(chunk.logits);
  at::Tensor log_p = log_probabilities(chunk.dense);
  if (options.loss->interpolates) log_p = interpolated(log_p, log_q, options.parameter);
  const auto [value, slope] = options.loss->cells->tensors(log_p, log_q, options.loss->coefficients(options.parameter));
  const at::Tensor sum = value.sum(1);
  return {sum, at::zeros_like(sum), slope - log_q.exp() * slope.sum(1, true)};
}

Divergence of_partition(const DivergenceChunk& chunk, const DivergenceOptions& options) {
  const Partition& p = chunk.partition;
  const int64_t n = chunk.logits.size(0), vocab = chunk.logits.size(1), k = p.ids.size(1), cells = p.log_mass.size(1);
  const auto type = chunk.logits.scalar_type();
  const at::Tensor unused = p.ids < 0, cell_of = p.cell_of.to(at::kLong);
  // One more column, where places that are not used point.
  const at::Tensor ids = p.ids.to(at::kLong).masked_fill(unused, vocab);
  at::Tensor q = at::constant_pad_nd(at::softmax(chunk.logits / options.temperature, 1), {0, 1});
  const at::Tensor heads = q.gather(1, ids);
  const at::Tensor rest = q.scatter(1, ids, 0).slice(1, 0, vocab);
  const at::Tensor masses = at::zeros({n, cells}, chunk.logits.options()).index_add_(1, cell_of, rest);

  const at::Tensor mass = at::cat({heads, masses}, 1), log_q = mass.log().clamp_min(lowest_log_probability);
  at::Tensor log_p = at::cat({p.log_p.masked_fill(unused, lowest_log_probability), p.log_mass}, 1)
                         .to(type)
                         .clamp_min(lowest_log_probability);
  if (options.loss->interpolates) log_p = interpolated(log_p, log_q, options.parameter);
  const auto [value, slope] = options.loss->cells->tensors(log_p, log_q, options.loss->coefficients(options.parameter));

  const at::Tensor factor = (slope / mass).masked_fill(mass == 0, 0);
  at::Tensor factors = at::constant_pad_nd(factor.slice(1, k).index_select(1, cell_of), {0, 1});
  factors.scatter_(1, ids, factor.slice(1, 0, k));
  return {value.sum(1), value.slice(1, k).sum(1), (q * (factors - slope.sum(1, true))).slice(1, 0, vocab)};
}

/// Whether the student's most likely token is the teacher's, f64 [n]; never, where the teacher names none.
at::Tensor agreement(const DivergenceChunk& chunk) {
  const at::Tensor top = std::get<0>(chunk.logits.max(1, true));
  at::Tensor token;
  if (chunk.dense.defined()) {
    token = chunk.dense.argmax(1, true);
  } else {
    if (chunk.partition.ids.size(1) == 0) return at::zeros_like(top.squeeze(1), at::kDouble);
    const Partition& p = chunk.partition;
    token = p.ids.to(at::kLong).gather(
        1, p.log_p.masked_fill(p.ids < 0, -std::numeric_limits<float>::infinity()).argmax(1, true));
  }
  return chunk.logits.gather(1, token.clamp_min(0)).ge(top).logical_and(token >= 0).squeeze(1).to(at::kDouble);
}

}  // namespace

void divergence_by_operators(const DivergenceChunk& chunk, const DivergenceOptions& options) {
  const auto column = [&](Measured which) { return chunk.measured.select(1, which); };
  const bool dense = chunk.dense.defined();
  const Divergence divergence = !options.loss->cells ? of_whole(chunk, options)
                                : dense              ? of_tokens(chunk, options)
                                                     : of_partition(chunk, options);
  if (options.loss->cells)
    column(kAgrees).copy_(agreement(chunk));
  else
    column(kAgrees).zero_();  // ids of two vocabularies
  if (dense)
    column(kTailMass).zero_();
  else
    column(kTailMass).copy_(chunk.partition.log_mass.to(at::kDouble).exp().sum(1));
  column(kDivergence).copy_(divergence.value);
  column(kTailDivergence).copy_(divergence.tail);

  at::Tensor logits = chunk.logits;
  const at::Tensor labels = chunk.labels.unsqueeze(1), log_sum = at::logsumexp(logits, 1, true);
  column(kCrossEntropy).copy_((log_sum - logits.gather(1, labels)).squeeze(1));
  logits.sub_(log_sum).exp_().mul_(options.ce_weight);
  logits.scatter_add_(1, labels, at::full_like(labels, -options.ce_weight, logits.options()));
  logits.add_(divergence.gradient, options.kd_weight * options.temperature);  // T² / T
}

}  // namespace retort
