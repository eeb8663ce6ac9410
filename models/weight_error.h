// How far a model's weights are from those it was made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/checkpoint.h"

namespace retort {

/// Sums of squares over weights, f64.
struct Squares {
  double difference = 0, size = 0;
  /// |difference| / |size|, 2-norms.
  double relative() const;
};

struct WeightError {
  std::string name;         ///< Hugging Face's
  std::string before, now;  ///< types
  std::vector<int64_t> shape;
  double bits_per_weight = 0;
  Squares squares;
  double largest = 0;  ///< difference of one weight
};

/// Each tensor of `made` against the same of `original`, both dequantized to f32; a head of its own against the
/// embedding where the original has one matrix for both. Error(bad_input) naming the tensor that `original` does not
/// have, or has in another shape. One tensor is in memory at a time.
std::vector<WeightError> weight_errors(const Checkpoint& original, const Checkpoint& made);

}  // namespace retort
