// Optimizers: what all of them share (gradients, clipping, groups, state by name), and the table of kinds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/linear.h"
#include "trainer/options.h"

namespace retort {

/// One tensor that an optimizer keeps for a parameter from update to update.
struct StateTensor {
  const char* name;  ///< as torch.optim or bitsandbytes call it
  at::Tensor tensor;
};

/// Parameters that are updated alike: lists in the same order.
struct UpdateGroup {
  std::vector<at::Tensor> parameters, gradients;
  std::vector<std::vector<StateTensor>> state;  ///< [parameter][the kind's order]
  double learning_rate = 0, weight_decay = 0;
  int64_t step = 1;  ///< counts from 1

  /// The i-th state of every parameter.
  std::vector<at::Tensor> states(size_t i) const;
  /// Those whose parameter is one of a sort.
  UpdateGroup of(bool (*sort)(const at::Tensor& parameter)) const;
};

/// One kind of optimizer: trainer/optimizers/<name>.cpp defines `extern const OptimizerKind optimizer_<name>`.
struct OptimizerKind {
  const char* name;
  const char* summary;
  std::vector<std::string> options;  ///< keys that not every kind reads: train.adam_* and those of train.optim_args
  /// What is kept for a parameter, as it is before the first update, on the parameter's device (which may be "meta").
  std::vector<StateTensor> (*state)(const at::Tensor& parameter, const TrainOptions& options);
  /// Updates parameters and state in place. No gradient is NaN or infinite.
  void (*update)(const UpdateGroup& group, const TrainOptions& options);
};

const std::vector<const OptimizerKind*>& optimizer_kinds();
/// Of "adamw" or "paged_adamw"; Error(usage) with "did you mean" when there is none.
const OptimizerKind& optimizer_kind(const std::string& name);
/// Every name that train.optimizer may have, paged ones last.
std::vector<std::string> optimizer_names();
/// State on the host, for the time of a parameter's update on its device.
bool is_paged(const std::string& optimizer);

/// Bytes of the state that train.optimizer keeps for these parameters, wherever it lies.
int64_t optimizer_state_bytes(const std::vector<Parameter>& parameters, const TrainOptions& options);

/// The optimizer of a run: parameters, their gradients, and a kind's state for each.
///
/// Weight decay leaves biases and norms alone, as Hugging Face's Trainer does. With loraplus_lr_ratio the learning
/// rates are those of PEFT's create_loraplus_optimizer. Parameters of 16 bits are updated in f32, in which their state
/// is too, and rounded stochastically: up or down with the probability that keeps the mean, so that updates smaller
/// than half of the last bit are not lost. The random bits follow from seed, parameter and step.
class Optimizer {
 public:
  /// Error(usage) when there is nothing to train, or loraplus_lr_ratio is given and no parameter is a B.
  Optimizer(const std::vector<Parameter>& parameters, const TrainOptions& options, uint64_t seed = 0);

  /// Zeroes every gradient in place (makes it first where there is none), so that backward passes add into buffers that
  /// stay.
  void zero_grad();
  /// Global 2-norm of the gradients; when above `max_norm` (> 0) and finite, scales them down to it, as
  /// torch.nn.utils.clip_grad_norm_ does. Returns the norm before scaling.
  double clip(double max_norm);
  /// 2-norm of each parameter's gradient, in the parameters' order: to find where a run broke.
  std::vector<double> grad_norms() const;
  void step(double learning_rate);

  int64_t steps() const { return steps_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// The state by name: "<parameter>.<state>". The tensors share memory with the optimizer.
  std::vector<Parameter> state() const;
  /// Continues after `steps` updates; the state was copied into state()'s tensors before.
  void set_steps(int64_t steps) { steps_ = steps; }
  /// Bytes of state and gradients.
  int64_t bytes() const;

 private:
  struct Rate {
    double factor = 1;  ///< of the learning rate
    bool decays = true;
    bool operator==(const Rate&) const = default;
  };
  Rate rate_of(const Parameter& parameter) const;
  UpdateGroup group(const Rate& rate, double learning_rate) const;
  void step_alone(size_t i, double learning_rate);

  const OptimizerKind& kind_;
  std::vector<Parameter> parameters_;
  TrainOptions options_;
  uint64_t seed_;
  std::vector<Rate> rates_;                      ///< of each parameter
  std::vector<std::vector<StateTensor>> state_;  ///< of each parameter; on the host when paged
  bool alone_;                                   ///< one parameter at a time: paged state, or parameters of 16 bits
  int64_t steps_ = 0;
};

}  // namespace retort
