// Stochastic gradient descent with momentum, as torch.optim.SGD computes it: weight decay is added to the gradient.
#include <ATen/ATen.h>

#include "trainer/optimizer.h"

namespace retort {

static double momentum(const TrainOptions& options) { return options.optim_args.momentum.value_or(0); }

extern const OptimizerKind optimizer_sgd{
    .name = "sgd",
    .summary = "the gradient, with momentum if asked for; weight decay is added to it",
    .options = {"momentum", "dampening", "nesterov"},
    .state =
        [](const at::Tensor& parameter, const TrainOptions& options) {
          std::vector<StateTensor> state;
          if (momentum(options) > 0) state.push_back({"momentum_buffer", at::zeros_like(parameter)});
          return state;
        },
    .update =
        [](const UpdateGroup& group, const TrainOptions& options) {
          std::vector<at::Tensor> parameters = group.parameters, gradients = group.gradients, buffers;
          if (momentum(options) > 0) buffers = group.states(0);
          at::_fused_sgd_(parameters, gradients, buffers, group.weight_decay, momentum(options), group.learning_rate,
                          options.optim_args.dampening.value_or(0), options.optim_args.nesterov.value_or(false),
                          /*maximize=*/false, /*is_first_step=*/group.step == 1);
        },
};

}  // namespace retort
