// What a merge makes of a base weight and its adapter.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "models/causal_lm.h"

namespace retort {

/// The adapters by the name of the weight that each changes ("model.layers.0.self_attn.q_proj.weight"). They belong to
/// the model.
std::map<std::string, const LinearAdapter*> adapted_weights(CausalLM& model);

/// W + delta as f32 [out, in] on the CPU; W is the stored weight, dequantized exactly as llama.cpp does it.
at::Tensor merged_weight(const QuantizedTensor& stored, const LinearAdapter& adapter);

}  // namespace retort
