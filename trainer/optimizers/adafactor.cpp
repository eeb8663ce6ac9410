// Adafactor: a second moment of rows and columns instead of one of every number (https://arxiv.org/abs/1804.04235), as
// torch.optim.Adafactor computes it, but for one default: the learning rate is the recipe's own, as in Hugging Face's
// Trainer. torch (scale_parameter: true) multiplies it by a parameter's root mean square, and B of LoRA starts at zero.
#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "trainer/optimizer.h"

namespace retort {
namespace {

at::Tensor root_mean_square(const at::Tensor& x) { return x.norm() / std::sqrt(static_cast<double>(x.numel())); }

/// Estimate of each number's second moment, after the gradient went into it with this weight.
at::Tensor second_moment(const at::Tensor& gradient, const std::vector<StateTensor>& state, double weight,
                         double epsilon) {
  if (gradient.dim() < 2) return state[0].tensor.lerp_(gradient.square(), weight).clone();
  const at::Tensor rows = state[0].tensor, columns = state[1].tensor;
  rows.lerp_(gradient.norm(2, {-1}, true).square_().div_(gradient.size(-1)), weight);
  columns.lerp_(gradient.norm(2, {-2}, true).square_().div_(gradient.size(-2)), weight);
  return rows.matmul(columns).div_(rows.mean({-2}, true).clamp_min_(epsilon));
}

}  // namespace

extern const OptimizerKind optimizer_adafactor{
    .name = "adafactor",
    .summary = "a second moment of each row and column, no first one: hardly any memory",
    .options = {"decay_rate", "clip_threshold", "scale_parameter"},
    .state = [](const at::Tensor& parameter, const TrainOptions&) -> std::vector<StateTensor> {
      if (parameter.dim() < 2) return {{"variance", at::zeros_like(parameter)}};
      std::vector<int64_t> rows = parameter.sizes().vec(), columns = rows;
      rows.back() = 1;
      columns[columns.size() - 2] = 1;
      return {{"row_var", at::zeros(rows, parameter.options())}, {"col_var", at::zeros(columns, parameter.options())}};
    },
    .update =
        [](const UpdateGroup& group, const TrainOptions& options) {
          const OptimArgs& args = options.optim_args;
          const auto step = static_cast<double>(group.step);
          const double weight = std::pow(step, args.decay_rate.value_or(-0.8));
          const double relative = std::min(group.learning_rate, 1 / std::sqrt(step));
          for (size_t i = 0; i < group.parameters.size(); ++i) {
            const at::Tensor &parameter = group.parameters[i], &gradient = group.gradients[i];
            const double epsilon = parameter.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                                          : std::numeric_limits<float>::epsilon();
            at::Tensor update = second_moment(gradient, group.state[i], weight, epsilon);
            update.clamp_min_(epsilon * epsilon).rsqrt_().mul_(gradient);
            update.div_((root_mean_square(update) / args.clip_threshold.value_or(1)).clamp_min_(1));
            if (args.scale_parameter.value_or(false))
              update.mul_(root_mean_square(parameter).clamp_min_(1e-3).mul_(relative));
            else
              update.mul_(group.learning_rate);
            if (group.weight_decay > 0) parameter.mul_(1 - group.learning_rate * group.weight_decay);
            parameter.sub_(update);
          }
        },
};

}  // namespace retort
