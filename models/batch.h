// What a model is fed: documents laid end to end, without padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace retort {

/// T tokens of one or more documents. Documents never attend to each other; positions restart in each.
struct Batch {
  at::Tensor ids;                ///< i64 [T]
  at::Tensor labels;             ///< i64 [T]: the token to predict after position t, -1 where nothing is trained
  std::vector<int64_t> offsets;  ///< start of each document, then T: [documents + 1]
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
};

}  // namespace retort
