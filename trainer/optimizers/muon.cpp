// Muon: a momentum made orthogonal by Newton-Schulz iterations (https://kellerjordan.github.io/posts/muon/), as
// torch.optim.Muon computes it, for matrices; vectors are updated by AdamW. The default scale is Moonshot's
// (https://arxiv.org/abs/2502.16982), with which both want AdamW's learning rate.
#include <ATen/ATen.h>

#include <cmath>

#include "trainer/optimizers/adamw.h"

namespace retort {
namespace {

bool is_matrix(const at::Tensor& parameter) { return parameter.dim() == 2; }

/// The nearest orthogonal matrix, about: five steps of a quintic that is steep at zero, in bf16.
at::Tensor orthogonal(const at::Tensor& matrix, int64_t steps) {
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = matrix.to(at::kBFloat16);
  if (tall) x = x.t();
  x = x / x.norm().clamp_min(1e-7);
  for (int64_t i = 0; i < steps; ++i) {
    const at::Tensor gram = x.mm(x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, -4.7750, 2.0315), x, 3.4445, 1);
  }
  return tall ? x.t() : x;
}

/// What a matrix's learning rate is multiplied by.
double scale(const at::Tensor& matrix, const std::string& rule) {
  const auto rows = static_cast<double>(matrix.size(0)), columns = static_cast<double>(matrix.size(1));
  return rule == "original" ? std::sqrt(std::max(1.0, rows / columns)) : 0.2 * std::sqrt(std::max(rows, columns));
}

}  // namespace

extern const OptimizerKind optimizer_muon{
    .name = "muon",
    .summary = "one moment, made orthogonal, for matrices; AdamW for vectors",
    .options = {"momentum", "nesterov", "ns_steps", "adjust_lr_fn", "adam_beta1", "adam_beta2", "adam_epsilon"},
    .state =
        [](const at::Tensor& parameter, const TrainOptions& options) {
          return is_matrix(parameter) ? std::vector<StateTensor>{{"momentum_buffer", at::zeros_like(parameter)}}
                                      : optimizer_kind("adamw").state(parameter, options);
        },
    .update =
        [](const UpdateGroup& group, const TrainOptions& options) {
          const OptimArgs& args = options.optim_args;
          const double momentum = args.momentum.value_or(0.95);
          for (size_t i = 0; i < group.parameters.size(); ++i) {
            const at::Tensor &parameter = group.parameters[i], &gradient = group.gradients[i];
            if (!is_matrix(parameter)) continue;
            const at::Tensor buffer = group.state[i][0].tensor.lerp_(gradient, 1 - momentum);
            const at::Tensor ahead = args.nesterov.value_or(true) ? gradient.lerp(buffer, momentum) : buffer;
            if (group.weight_decay > 0) parameter.mul_(1 - group.learning_rate * group.weight_decay);
            parameter.add_(orthogonal(ahead, args.ns_steps.value_or(5)),
                           -group.learning_rate * scale(parameter, args.adjust_lr_fn.value_or("match_rms_adamw")));
          }
          adamw_update(group.of([](const at::Tensor& parameter) { return !is_matrix(parameter); }), options);
        },
};

}  // namespace retort
