// Universal logit distillation (https://arxiv.org/abs/2402.12030): sum over ranks of |q - p|, both sorted from the most
// likely token down; the shorter vocabulary ends in zeros. Tokens are not compared, so the vocabularies may differ.
#include <ATen/ATen.h>

#include "trainer/loss.h"

namespace retort {
namespace {

/// Below the ranks that are known of the teacher both are compared by what is left, in one sum.
at::Tensor sorted_difference(at::Tensor& q, const at::Tensor& p, const at::Tensor& tail) {
  const int64_t known = std::min(q.size(1), p.size(1));
  const at::Tensor teacher = std::get<0>(p.topk(p.size(1), 1)), known_teacher = teacher.slice(1, 0, known);
  const auto [student, tokens] = q.topk(known, 1);
  const at::Tensor rest = q.sum(1) - student.sum(1) - teacher.slice(1, known).sum(1) - tail;
  const at::Tensor difference = student - known_teacher;
  q.copy_(rest.sign().unsqueeze(1).expand_as(q)).scatter_(1, tokens, difference.sign());
  return difference.abs().sum(1) + rest.abs();
}

}  // namespace

extern const LossKind loss_uld{
    .name = "uld",
    .summary = "difference of the sorted probabilities; for any two vocabularies",
    .whole = sorted_difference,
};

}  // namespace retort
