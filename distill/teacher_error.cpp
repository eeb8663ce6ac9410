#include "distill/teacher_error.h"

#include <ATen/ATen.h>

#include <numeric>

#include "core/error.h"

namespace retort {
namespace {

at::Tensor all_logits(Teacher& teacher, const std::vector<int32_t>& document) {
  std::vector<int64_t> positions(document.size());
  std::iota(positions.begin(), positions.end(), 0);
  at::Tensor result;
  teacher.logits({document}, {positions}, [&](size_t, const at::Tensor& logits) { result = logits; });
  return result;
}

}  // namespace

Json TeacherError::to_json() const {
  return {{"positions", positions}, {"mean_kl", mean_kl}, {"p99_kl", p99_kl}, {"agreement", agreement}};
}

TeacherError teacher_error(Teacher& teacher, Teacher& reference, const std::vector<std::vector<int32_t>>& documents) {
  if (teacher.vocab() != reference.vocab())
    fail(Exit::bad_input,
         "the teacher has {} tokens and its reference {}: the reference must be the same model in higher precision",
         teacher.vocab(), reference.vocab());
  std::vector<at::Tensor> divergences;
  TeacherError error;
  for (const std::vector<int32_t>& document : documents) {
    if (document.empty()) continue;
    const at::Tensor log_p = at::log_softmax(all_logits(reference, document), -1),
                     log_q = at::log_softmax(all_logits(teacher, document), -1);
    const at::Tensor terms = log_p.exp() * (log_p - log_q);
    divergences.push_back(terms.masked_fill(log_p == -INFINITY, 0).sum(-1, false, at::kDouble));
    error.agreement += log_p.argmax(-1).eq(log_q.argmax(-1)).sum().item<double>();
  }
  if (divergences.empty()) return error;
  const at::Tensor all = std::get<0>(at::cat(divergences).sort());
  error.positions = all.numel();
  error.mean_kl = all.mean().item<double>();
  error.p99_kl = all[(error.positions - 1) * 99 / 100].item<double>();
  error.agreement /= static_cast<double>(error.positions);
  return error;
}

}  // namespace retort
