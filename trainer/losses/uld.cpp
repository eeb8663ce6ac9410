// Universal logit distillation (https://arxiv.org/abs/2402.12030): sum over ranks of |q - p|, both sorted from the most
// likely token down; the shorter vocabulary ends in zeros. Tokens are not compared, so the vocabularies may differ.
#include <ATen/ATen.h>

#include "trainer/loss.h"

namespace retort {
namespace {

/// Teacher's ranks that are not known are compared in one sum: what p leaves against what the student has below.
at::Tensor sorted_difference(at::Tensor& q, const at::Tensor& p, const at::Tensor& tail) {
  const int64_t known = std::min(q.size(1), p.size(1));
  const auto [sorted, order] = q.sort(/*stable=*/true, 1, /*descending=*/true);
  const at::Tensor teacher = std::get<0>(p.sort(1, /*descending=*/true));
  at::Tensor ranks = sorted.clone();
  ranks.slice(1, 0, known).sub_(teacher.slice(1, 0, known));
  // Below the known ranks the student is compared as one sum, which may have the other sign.
  const at::Tensor rest = (ranks.slice(1, known).sum(1) - teacher.slice(1, known).sum(1) - tail).unsqueeze(1);
  const at::Tensor value = ranks.slice(1, 0, known).abs().sum(1) + rest.squeeze(1).abs();
  ranks.slice(1, 0, known).sign_();
  ranks.slice(1, known).copy_(rest.sign().expand_as(ranks.slice(1, known)));
  q.scatter_(1, order, ranks);
  return value;
}

}  // namespace

extern const LossKind loss_uld{
    .name = "uld",
    .summary = "difference of the sorted probabilities; for any two vocabularies",
    .whole = sorted_difference,
};

}  // namespace retort
