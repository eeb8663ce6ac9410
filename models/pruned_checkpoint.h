// A checkpoint of which only some layers, MLP channels and tokens are seen: a smaller model, without a copy of the
// weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/checkpoint.h"

namespace retort {

/// What is kept of a model.
struct Pruning {
  std::vector<int64_t> layers = {};  ///< the base's layers in the new order; empty: all
  /// The MLP's channels of each kept layer, as many in each; empty: all.
  std::vector<std::vector<int64_t>> channels = {};
  std::vector<int64_t> tokens = {};  ///< rows of the embedding and the head in the new order; empty: all
};

/// `base` as `kept` says; it must outlive the result. Whole rows keep the base's blocks; a matrix that loses columns
/// becomes F32, for its blocks lie along them. What belongs to the file (path, metadata, vocabulary) stays the base's:
/// export_hf_folder writes a file of its own. Error(usage) for a layer, channel or token that the base does not have.
std::unique_ptr<Checkpoint> prune_while_reading(const Checkpoint& base, Pruning kept);

}  // namespace retort
