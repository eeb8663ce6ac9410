// AdamW with its state in our hands, and clipping by the global norm.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/linear.h"
#include "trainer/options.h"

namespace retort {

/// Decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW computes it. Moments have each parameter's
/// shape, dtype and device.
class AdamW {
 public:
  AdamW(const std::vector<Parameter>& parameters, const TrainOptions& options);

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
  /// Moments by name: "<parameter>.exp_avg" and "<parameter>.exp_avg_sq". They share memory with the optimizer.
  std::vector<Parameter> state() const;
  /// Continues after `steps` updates; the moments were copied into state()'s tensors before.
  void set_steps(int64_t steps) { steps_ = steps; }
  /// Bytes of the moments and of the gradients.
  int64_t bytes() const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<at::Tensor> tensors_, exp_avg_, exp_avg_sq_;
  TrainOptions options_;
  int64_t steps_ = 0;
};

}  // namespace retort
