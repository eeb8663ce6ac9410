// Lion: the sign of a momentum (https://arxiv.org/abs/2302.06675), as bitsandbytes computes it.
#include <ATen/ATen.h>

#include "trainer/optimizer.h"

namespace retort {

extern const OptimizerKind optimizer_lion{
    .name = "lion",
    .summary = "the sign of one moment; wants a third to a tenth of AdamW's learning rate",
    .options = {"adam_beta1", "adam_beta2"},
    .state =
        [](const at::Tensor& parameter, const TrainOptions&) {
          return std::vector<StateTensor>{{"exp_avg", at::zeros_like(parameter)}};
        },
    .update =
        [](const UpdateGroup& group, const TrainOptions& options) {
          const double beta1 = options.adam_beta1.value_or(0.9), beta2 = options.adam_beta2.value_or(0.99);
          std::vector<at::Tensor> parameters = group.parameters, averages = group.states(0);
          if (group.weight_decay > 0) at::_foreach_mul_(parameters, 1 - group.learning_rate * group.weight_decay);
          std::vector<at::Tensor> direction = at::_foreach_mul(averages, beta1);
          at::_foreach_add_(direction, group.gradients, 1 - beta1);
          at::_foreach_sign_(direction);
          at::_foreach_add_(parameters, direction, -group.learning_rate);
          at::_foreach_mul_(averages, beta2);
          at::_foreach_add_(averages, group.gradients, 1 - beta2);
        },
};

}  // namespace retort
