// What a student is held against: a teacher's distribution over the vocabulary, whole or coarse-grained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "models/batch.h"

namespace retort {

/// A teacher's distribution at n positions over a partition of the student's vocabulary V: some tokens of their own,
/// and cells of the others. One cell is the ghost bucket, as many cells as tokens would be the whole distribution.
struct Partition {
  at::Tensor ids;       ///< i32 [n, k]: the tokens that are told apart, -1 in places that are not used
  at::Tensor log_p;     ///< f32 [n, k]: their log-probabilities in nats, -inf in places that are not used
  at::Tensor cell_of;   ///< u8 [V]: the cell of each token
  at::Tensor log_mass;  ///< f32 [n, C]: log of the mass in each cell without `ids`; -inf where there is none
};

/// The teacher at the trained positions of one batch, in their order, at one temperature.
struct TeacherTargets {
  int64_t rows = 0;
  /// The teacher's logits of rows [begin, end), before the temperature, f32 [end - begin, V]; asked for in ascending
  /// order, so that rows x vocabulary need never exist. Empty: `partition` holds what is known.
  std::function<at::Tensor(int64_t begin, int64_t end)> dense = {};
  Partition partition = {};
};

/// Finds the teacher's word on a batch: in a cache, or by asking the teacher. `windows` are the data set's indices.
using TargetSource = std::function<TeacherTargets(const Batch& batch, std::span<const int64_t> windows)>;

}  // namespace retort
