// Heads, targets and gradients for the tests of linear_divergence.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "trainer/divergence.h"

namespace retort {

inline Linear head_of(const at::Tensor& weight) {
  return {.name = "lm_head",
          .in = weight.size(1),
          .out = weight.size(0),
          .weight = FrozenMatrix(weight),
          .bias = {},
          .adapter = {}};
}

/// The identity, so that hidden states are logits.
inline Linear no_head(int64_t vocab, at::ScalarType type = at::kDouble) { return head_of(at::eye(vocab, type)); }

inline TeacherTargets dense_targets(const at::Tensor& logits) {
  return {.rows = logits.size(0),
          .dense = [logits](int64_t begin, int64_t end) { return logits.slice(0, begin, end); },
          .partition = {}};
}

/// The teacher's k most likely tokens, and its mass in the cells of cell_of [V] without them.
inline TeacherTargets partition_targets(const at::Tensor& logits, double temperature, int64_t k,
                                        const at::Tensor& cell_of) {
  const at::Tensor log_p = at::log_softmax(logits.to(at::kDouble) / temperature, 1);
  const auto [named, ids] = log_p.topk(k, 1);
  const at::Tensor mass = at::zeros({logits.size(0), cell_of.max().item<int64_t>() + 1}, at::kDouble);
  mass.index_add_(1, cell_of, log_p.exp().scatter(1, ids, 0));
  return {.rows = logits.size(0),
          .dense = {},
          .partition = {.ids = ids.to(at::kInt),
                        .log_p = named.to(at::kFloat),
                        .cell_of = cell_of.to(at::kByte),
                        .log_mass = mass.log().to(at::kFloat)}};
}
inline TeacherTargets ghost_targets(const at::Tensor& logits, double temperature, int64_t k) {
  return partition_targets(logits, temperature, k, at::zeros({logits.size(1)}, at::kLong));
}

struct Loss {
  at::Tensor value, gradient;
  DivergenceRows rows = {};
};

/// The sum over all rows and its gradient by the student's logits (or hidden states, with a head).
inline Loss loss_of(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                    const TeacherTargets& targets, const DivergenceOptions& options) {
  const at::Tensor x = hidden.detach().clone().requires_grad_(true);
  Loss loss;
  const at::Tensor sum = linear_divergence(head, x, labels, targets, options, &loss.rows);
  sum.backward();
  loss.value = sum.detach();
  loss.gradient = x.grad();
  return loss;
}
inline Loss loss_of(const at::Tensor& logits, const TeacherTargets& targets, const DivergenceOptions& options) {
  return loss_of(no_head(logits.size(1), logits.scalar_type()), logits, at::zeros({logits.size(0)}, at::kLong), targets,
                 options);
}

inline DivergenceOptions divergence(const std::string& name, double parameter = 0, double temperature = 1,
                                    double ce_weight = 0) {
  return {.loss = &loss_kind(name), .parameter = parameter, .temperature = temperature, .ce_weight = ce_weight};
}

/// Every kind with a parameter that tells it from the others.
inline std::vector<DivergenceOptions> all_divergences(double temperature = 1, double ce_weight = 0) {
  std::vector<DivergenceOptions> all;
  for (const LossKind* kind : loss_kinds())
    all.push_back(divergence(kind->name, kind->parameter.name ? 0.3 : 0, temperature, ce_weight));
  return all;
}

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

inline at::Tensor normal(at::IntArrayRef shape, uint64_t seed, at::ScalarType type = at::kDouble) {
  auto generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  generator.set_current_seed(seed);
  return at::randn(shape, generator, at::kDouble).to(type);
}

}  // namespace retort
