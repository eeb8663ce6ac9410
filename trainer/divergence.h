// The head, a loss against a teacher, and the cross entropy in one, a chunk of tokens at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "distill/targets.h"
#include "models/cross_entropy.h"
#include "models/linear.h"
#include "trainer/loss.h"

namespace retort {

struct DivergenceOptions {
  const LossKind* loss = &loss_kind("forward_kl");
  double parameter = 0;    ///< the kind's; of an interpolating kind its t now
  double temperature = 1;  ///< of the student, and of `dense` targets; a partition has it already
  double kd_weight = 1, ce_weight = 0;
  int64_t chunk = default_chunk;
};

/// What linear_divergence measured of each trained row, f64 [rows] on the device of `hidden`, in the batch's order.
struct DivergenceRows {
  at::Tensor divergence;       ///< nats (uld, tvd: probability), unweighted
  at::Tensor cross_entropy;    ///< nats at temperature 1, unweighted
  at::Tensor agrees;           ///< 1 where the teacher's most likely token is the student's, else 0
  at::Tensor tail_mass;        ///< the teacher's mass in cells; 0 for dense targets
  at::Tensor tail_divergence;  ///< what cells contribute to `divergence`
};

/// kd_weight T² D + ce_weight CE, summed over labels >= 0: D is the loss in nats between the teacher and
/// softmax(head(hidden) / T), CE is -log softmax(head(hidden))[label]. f32 (f64 for f64 hidden), a scalar that is
/// differentiable by hidden [T, dim] and by the head's adapter, with gradients in closed form: neither tokens x
/// vocabulary nor a frozen head's gradient exists. labels i64 [T]; targets has a row for each label >= 0, and `dense`
/// is asked once for each, in order. NaN in hidden, head or targets gives NaN. Error(bad_input) when the targets do not
/// fit the labels or the vocabulary.
at::Tensor linear_divergence(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                             const TeacherTargets& targets, const DivergenceOptions& options,
                             DivergenceRows* rows = nullptr);

}  // namespace retort
