// What a document's logits are read for: the tokens that follow its positions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/example.h"

namespace retort {

/// Token t of a document is predicted at position t - 1; the first has no prediction.
struct Targets {
  std::vector<int64_t> positions;
  std::vector<int64_t> ids;
};

Targets trained_targets(const Example& example);
/// Of an answer that follows a prompt.
Targets answer_targets(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer);
std::vector<int32_t> joined(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer);
/// log p of `ids` in nats under logits f32 [n, V], one a row.
std::vector<double> log_probabilities(const at::Tensor& logits, const std::vector<int64_t>& ids);
double sum(const std::vector<double>& values);

}  // namespace retort
