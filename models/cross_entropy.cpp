#include "models/cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

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

/// Gradients of the head's adapter, apart from those that its parameters have already: they lack the factor that
/// backward brings.
class AdapterGradients {
 public:
  explicit AdapterGradients(const Linear& head) {
    if (!head.adapter) return;
    for (const Parameter& p : head.adapter->parameters()) {
      tensors_.push_back(p.tensor);
      before_.push_back(p.tensor.grad());
      tensors_.back().mutable_grad() = at::zeros_like(p.tensor);
    }
  }
  ~AdapterGradients() {
    for (size_t i = 0; i < tensors_.size(); ++i) tensors_[i].mutable_grad() = before_[i];
  }
  AdapterGradients(const AdapterGradients&) = delete;
  AdapterGradients& operator=(const AdapterGradients&) = delete;

  variable_list collected() const {
    variable_list out;
    for (const at::Tensor& t : tensors_) out.push_back(t.grad());
    return out;
  }

 private:
  std::vector<at::Tensor> tensors_, before_;
};

/// The loss's sum; with a defined dx [n, dim], also its gradient by x, and the adapter's gradients are added up.
at::Tensor sum_of_chunks(const Linear& head, const at::Tensor& x, const LogitsLoss& loss,
                         const std::vector<int64_t>& ends, const at::Tensor& dx) {
  const auto wide = at::toOpMathType(x.scalar_type());
  at::Tensor sum = at::zeros({}, x.options().dtype(at::kDouble));
  Kept kept;
  int64_t longest = 0, begin = 0;
  for (const int64_t end : ends) longest = std::max(longest, end - std::exchange(begin, end));
  at::Tensor buffer = at::empty({longest, head.out}, x.options());
  begin = 0;
  for (const int64_t end : ends) {
    const at::Tensor input = x.slice(0, begin, end);
    at::Tensor logits = buffer.slice(0, 0, end - begin);
    linear_forward(head, input, logits, dx.defined(), kept);
    logits = logits.to(wide);
    sum.add_(loss(begin, logits));
    if (dx.defined()) linear_backward(head, input, logits.to(x.scalar_type()), kept, dx.slice(0, begin, end));
    begin = end;
  }
  return sum.to(wide);
}

/// All gradients are known as soon as the logits are, but for the factor that backward brings.
struct LinearLoss : torch::autograd::Function<LinearLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& rows, const Linear* head,
                            const LogitsLoss* loss, const std::vector<int64_t>* ends) {
    const at::Tensor x = rows.size(0) == hidden.size(0) ? hidden : hidden.index_select(0, rows), dx = at::empty_like(x);
    const AdapterGradients gradients(*head);
    const at::Tensor sum = sum_of_chunks(*head, x, *loss, *ends, dx);
    variable_list saved = gradients.collected();
    saved.insert(saved.end(), {dx, rows});
    ctx->save_for_backward(saved);
    ctx->saved_data["head"] = reinterpret_cast<int64_t>(head);
    ctx->saved_data["tokens"] = hidden.size(0);
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    variable_list saved = ctx->get_saved_variables();
    const at::Tensor& factor = gradients[0];
    const at::Tensor rows = saved.back(),
                     dx = (saved[saved.size() - 2] * factor).to(saved[saved.size() - 2].scalar_type());
    const auto& head = *reinterpret_cast<const Linear*>(ctx->saved_data["head"].toInt());
    if (head.adapter) {
      const std::vector<Parameter> parameters = head.adapter->parameters();
      for (size_t i = 0; i < parameters.size(); ++i) {
        at::Tensor t = parameters[i].tensor, scaled = saved[i].mul(factor).to(t.scalar_type());
        if (t.grad().defined())
          t.mutable_grad().add_(scaled);
        else
          t.mutable_grad() = scaled;
      }
    }
    const int64_t tokens = ctx->saved_data["tokens"].toInt();
    if (dx.size(0) == tokens) return {dx, {}, {}, {}, {}};
    return {at::zeros({tokens, dx.size(1)}, dx.options()).index_copy_(0, rows, dx), {}, {}, {}, {}};
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

at::Tensor linear_loss(const Linear& head, const at::Tensor& hidden, const at::Tensor& rows, const LogitsLoss& loss,
                       int64_t chunk) {
  std::vector<int64_t> ends;
  for (int64_t begin = 0; begin < rows.size(0); begin += chunk) ends.push_back(std::min(begin + chunk, rows.size(0)));
  return linear_loss(head, hidden, rows, loss, ends);
}

at::Tensor linear_loss(const Linear& head, const at::Tensor& hidden, const at::Tensor& rows, const LogitsLoss& loss,
                       const std::vector<int64_t>& ends) {
  if (wants_gradient(hidden)) return LinearLoss::apply(hidden, rows, &head, &loss, &ends);
  const at::NoGradGuard no_grad;
  return sum_of_chunks(head, hidden.index_select(0, rows), loss, ends, {});
}

at::Tensor linear_cross_entropy(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels, int64_t chunk) {
  const at::Tensor on_device = labels.to(hidden.device()), rows = at::nonzero(on_device >= 0).squeeze(1);
  const at::Tensor targets = on_device.index_select(0, rows);
  const LogitsLoss loss = [&](int64_t begin, const at::Tensor& logits) {
    return softmax_loss(logits, targets.slice(0, begin, begin + logits.size(0)));
  };
  return linear_loss(head, hidden, rows, loss, chunk);
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
