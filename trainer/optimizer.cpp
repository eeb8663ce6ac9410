#include "trainer/optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"

namespace retort {

AdamW::AdamW(const std::vector<Parameter>& parameters, const TrainOptions& options)
    : parameters_(parameters), options_(options) {
  if (parameters.empty()) fail(Exit::usage, "nothing to train: no adapter has a parameter");
  for (const auto& p : parameters_) {
    tensors_.push_back(p.tensor.detach());  // same memory, updated without autograd's checks
    exp_avg_.push_back(at::zeros_like(tensors_.back()));
    exp_avg_sq_.push_back(at::zeros_like(tensors_.back()));
  }
  zero_grad();
}

void AdamW::zero_grad() {
  for (auto& p : parameters_) {
    at::Tensor& grad = p.tensor.mutable_grad();
    if (grad.defined())
      grad.detach_().zero_();
    else
      grad = at::zeros_like(p.tensor.detach());
  }
}

static std::vector<at::Tensor> gradients(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> out;
  for (const auto& p : parameters) out.push_back(p.tensor.grad());
  return out;
}

std::vector<double> AdamW::grad_norms() const {
  std::vector<double> norms;
  for (const auto& norm : at::_foreach_norm(gradients(parameters_))) norms.push_back(norm.item<double>());
  return norms;
}

double AdamW::clip(double max_norm) {
  at::NoGradGuard no_grad;
  auto grads = gradients(parameters_);
  // The squares are added in double: thousands of f32 norms would otherwise depend on their order in the last digits.
  at::Tensor norm = at::stack(at::_foreach_norm(grads)).to(at::kDouble).norm();
  const double value = norm.item<double>();
  if (max_norm > 0 && std::isfinite(value)) {
    const double scale = max_norm / (value + 1e-6);
    if (scale < 1) at::_foreach_mul_(grads, at::Scalar(scale));
  }
  return value;
}

void AdamW::step(double learning_rate) {
  at::NoGradGuard no_grad;
  ++steps_;
  // The fused kernel wants the count as one tensor a parameter; they may be the same tensor, for it is only read.
  std::vector<at::Tensor> counts(tensors_.size(),
                                 at::full({}, double(steps_), tensors_[0].options().dtype(at::kFloat)));
  at::_fused_adamw_(tensors_, gradients(parameters_), exp_avg_, exp_avg_sq_, {}, counts, learning_rate,
                    options_.adam_beta1, options_.adam_beta2, options_.weight_decay, options_.adam_epsilon,
                    /*amsgrad=*/false,
                    /*maximize=*/false);
}

std::vector<Parameter> AdamW::state() const {
  std::vector<Parameter> out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({parameters_[i].name + ".exp_avg", exp_avg_[i]});
    out.push_back({parameters_[i].name + ".exp_avg_sq", exp_avg_sq_[i]});
  }
  return out;
}

int64_t AdamW::bytes() const {
  int64_t bytes = 0;
  for (const auto& t : tensors_) bytes += 3 * t.numel() * t.element_size();
  return bytes;
}

}  // namespace retort
