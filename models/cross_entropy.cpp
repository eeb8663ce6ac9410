#include "models/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/simd.h"

namespace retort {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// One row of logits becomes probabilities minus one at the label; returns -log p(label).
template <typename T>
RETORT_INLINE double loss_of_row(T* logits, int64_t n, int64_t label) {
  const T top = simd_max(logits, n);
  const double at_label = static_cast<double>(logits[label] - top);
  const double sum = simd_exp_sum(logits, n, top);
  const T scale = static_cast<T>(1 / sum);
  for (int64_t i = 0; i < n; ++i) logits[i] *= scale;
  logits[label] -= 1;
  return std::log(sum) - at_label;
}
RETORT_SIMD double row_loss(float* logits, int64_t n, int64_t label) { return loss_of_row(logits, n, label); }
RETORT_SIMD double row_loss(double* logits, int64_t n, int64_t label) { return loss_of_row(logits, n, label); }

/// Sum of the rows' losses, f64; the logits become d loss / d logits.
at::Tensor softmax_loss(at::Tensor logits, const at::Tensor& labels) {
  if (has_loops(logits)) {
    const int64_t rows = logits.size(0), n = logits.size(1);
    const at::Tensor losses = at::empty({rows}, at::kDouble);
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "softmax_loss", [&] {
      auto* data = logits.mutable_data_ptr<scalar_t>();
      const auto* label = labels.const_data_ptr<int64_t>();
      auto* loss = losses.mutable_data_ptr<double>();
      at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) loss[r] = row_loss(data + r * n, n, label[r]);
      });
    });
    return losses.sum();
  }
  const at::Tensor at_label = labels.unsqueeze(1), lse = at::logsumexp(logits, -1, true);
  const at::Tensor loss = (lse - logits.gather(1, at_label)).sum(at::kDouble);
  logits.sub_(lse).exp_().scatter_add_(1, at_label, at::full_like(at_label, -1, logits.options()));
  return loss;
}

/// Calls each(begin, end, d loss / d logits of these rows, what the head's adapter keeps) and returns the loss's sum.
template <typename Each>
at::Tensor for_chunks(const Linear& head, const at::Tensor& x, const at::Tensor& labels, int64_t chunk, bool training,
                      const Each& each) {
  const auto wide = at::toOpMathType(x.scalar_type());
  at::Tensor loss = at::zeros({}, x.options().dtype(at::kDouble));
  Kept kept;
  at::Tensor buffer = at::empty({std::min(chunk, x.size(0)), head.out}, x.options());
  for (int64_t begin = 0; begin < x.size(0); begin += chunk) {
    const int64_t end = std::min(begin + chunk, x.size(0));
    const at::Tensor input = x.slice(0, begin, end);
    at::Tensor logits = buffer.slice(0, 0, end - begin);
    linear_forward(head, input, logits, training, kept);
    logits = logits.to(wide);
    loss.add_(softmax_loss(logits, labels.slice(0, begin, end)));
    each(begin, end, logits.to(x.scalar_type()), kept);
  }
  return loss.to(wide);
}

/// A frozen head's gradient is known as soon as the logits are, but for the factor that backward brings. A head with an
/// adapter runs its chunks again in backward, when the factor is known: its parameters' gradients are summed in place.
struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& labels,
                            const Linear* head, int64_t chunk) {
    const at::Tensor rows = at::nonzero(labels >= 0).squeeze(1);
    const bool all = rows.size(0) == labels.size(0);
    const at::Tensor x = all ? hidden : hidden.index_select(0, rows), targets = labels.index_select(0, rows);
    at::Tensor kept = head->adapter ? x : at::empty_like(x);
    const at::Tensor loss = for_chunks(*head, x, targets, chunk, true,
                                       [&](int64_t begin, int64_t end, const at::Tensor& dlogits, const Kept&) {
                                         if (!head->adapter)
                                           base_backward(*head, dlogits, kept.slice(0, begin, end), false);
                                       });
    ctx->save_for_backward({kept, rows, targets});
    ctx->saved_data["head"] = reinterpret_cast<int64_t>(head);
    ctx->saved_data["chunk"] = chunk;
    ctx->saved_data["tokens"] = hidden.size(0);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &kept = saved[0], &rows = saved[1], &targets = saved[2], &factor = gradients[0];
    const auto& head = *reinterpret_cast<const Linear*>(ctx->saved_data["head"].toInt());
    at::Tensor dx;
    if (head.adapter) {
      dx = at::empty_like(kept);
      for_chunks(head, kept, targets, ctx->saved_data["chunk"].toInt(), true,
                 [&](int64_t begin, int64_t end, at::Tensor dlogits, const Kept& adapter_kept) {
                   dlogits.mul_(factor);
                   linear_backward(head, kept.slice(0, begin, end), dlogits, adapter_kept, dx.slice(0, begin, end));
                 });
    } else {
      dx = kept * factor;
    }
    const int64_t tokens = ctx->saved_data["tokens"].toInt();
    if (dx.size(0) != tokens) dx = at::zeros({tokens, dx.size(1)}, dx.options()).index_copy_(0, rows, dx);
    return {dx.to(kept.scalar_type()), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct Logits : torch::autograd::Function<Logits> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const Linear* head) {
    variable_list saved = {hidden};
    Kept kept;
    const at::Tensor logits = at::empty({hidden.size(0), head->out}, hidden.options());
    linear_forward(*head, hidden, logits, true, kept);
    saved.insert(saved.end(), kept.begin(), kept.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["head"] = reinterpret_cast<int64_t>(head);
    return logits.to(at::toOpMathType(hidden.scalar_type()));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto& head = *reinterpret_cast<const Linear*>(ctx->saved_data["head"].toInt());
    const at::Tensor &x = saved[0], dx = at::empty_like(x);
    linear_backward(head, x, gradients[0].to(x.scalar_type()).contiguous(), Kept(saved.begin() + 1, saved.end()), dx);
    return {dx, at::Tensor()};
  }
};

bool wants_gradient(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

}  // namespace

at::Tensor linear_cross_entropy(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels, int64_t chunk) {
  const at::Tensor targets = labels.to(hidden.device());
  if (wants_gradient(hidden)) return CrossEntropy::apply(hidden, targets, &head, chunk);
  const at::NoGradGuard no_grad;
  const at::Tensor rows = at::nonzero(targets >= 0).squeeze(1);
  return for_chunks(head, hidden.index_select(0, rows), targets.index_select(0, rows), chunk, false,
                    [](int64_t, int64_t, const at::Tensor&, const Kept&) {});
}

at::Tensor head_logits(const Linear& head, const at::Tensor& hidden) {
  if (wants_gradient(hidden)) return Logits::apply(hidden, &head);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = at::empty({hidden.size(0), head.out}, hidden.options());
  Kept unused;
  linear_forward(head, hidden, logits, false, unused);
  return logits.to(at::toOpMathType(hidden.scalar_type()));
}

}  // namespace retort
