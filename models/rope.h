// Rotary position embedding (https://arxiv.org/abs/2104.09864), the two halves of a head paired as Hugging Face's
// models do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/config.h"

namespace retort {

/// Angles of T tokens whose positions restart in each document: cos and sin [T, head_dim / 2].
struct Rotary {
  at::Tensor cos, sin;
};
Rotary rotary(const ModelConfig& config, const std::vector<int64_t>& offsets, at::ScalarType dtype, at::Device device);

/// Turns x [T, heads * head_dim] in place; `inverse` turns back, which is also the gradient.
void rotate(at::Tensor x, const Rotary& angles, bool inverse = false);

}  // namespace retort
