// Hidden-state matching: the student's states after chosen blocks follow a teacher's.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "models/causal_lm.h"
#include "trainer/distillation.h"

namespace retort {

/// A block of the student and the block of the teacher that it follows, both from 0.
struct LayerPair {
  int64_t student = 0, teacher = 0;
};

struct HiddenStateOptions {
  std::vector<LayerPair> layers;
  enum class Distance { cosine, mse } distance = Distance::cosine;
  bool project = false;  ///< through a learned matrix also where the widths agree; where they do not, always
  double weight = 1;
  uint64_t seed = 0;  ///< of the matrices
};

/// The teacher's states [T, width] after the blocks of the pairs, in their order, on the student's device.
using StateSource = std::function<std::vector<at::Tensor>(const Batch& batch, std::span<const int64_t> windows)>;

/// Those of a model that reads the same tokens; without gradients.
StateSource states_of(std::shared_ptr<CausalLM> teacher, const std::vector<LayerPair>& layers);

/// weight times the mean over the pairs of 1 - cos(s, t), or of the mean square of s - t, where s is the student's
/// state and t the teacher's, summed over trained tokens. Where s goes through a matrix [teacher_width, student's
/// width], it is a parameter in `state`: trained and in checkpoints, but no part of the adapter. `state` gets the sum
/// "hidden_states", unweighted. Error(usage) when a pair names a block that a model does not have.
ObjectivePart hidden_states_part(StateSource source, const HiddenStateOptions& options, const CausalLM& student,
                                 const ModelConfig& teacher, std::shared_ptr<ObjectiveState> state);

/// The student's blocks of the pairs, for sum_of.
std::vector<int64_t> student_blocks(const HiddenStateOptions& options);

}  // namespace retort
