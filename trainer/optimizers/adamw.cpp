// AdamW: decoupled weight decay (https://arxiv.org/abs/1711.05101), as torch.optim.AdamW computes it.
#include "trainer/optimizers/adamw.h"

#include <ATen/ATen.h>

namespace retort {

void adamw_update(const UpdateGroup& group, const TrainOptions& options) {
  if (group.parameters.empty()) return;
  std::vector<at::Tensor> parameters = group.parameters, gradients = group.gradients;
  std::vector<at::Tensor> first = group.states(0), second = group.states(1);
  // The fused kernel wants the count as one tensor a parameter; they may be the same tensor, for it is only read.
  const std::vector<at::Tensor> counts(parameters.size(),
                                       at::full({}, double(group.step), parameters[0].options().dtype(at::kFloat)));
  at::_fused_adamw_(parameters, gradients, first, second, {}, counts, group.learning_rate,
                    options.adam_beta1.value_or(0.9), options.adam_beta2.value_or(0.999), group.weight_decay,
                    options.adam_epsilon.value_or(1e-8), /*amsgrad=*/false, /*maximize=*/false);
}

extern const OptimizerKind optimizer_adamw{
    .name = "adamw",
    .summary = "two moments a number",
    .options = {"adam_beta1", "adam_beta2", "adam_epsilon"},
    .state =
        [](const at::Tensor& parameter, const TrainOptions&) {
          return std::vector<StateTensor>{{"exp_avg", at::zeros_like(parameter)},
                                          {"exp_avg_sq", at::zeros_like(parameter)}};
        },
    .update = adamw_update,
};

}  // namespace retort
