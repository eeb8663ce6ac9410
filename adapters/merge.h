// What a merge makes of the base's tensors and the adapters.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>

#include "models/causal_lm.h"

namespace retort {

/// The tensors of the merged model that are not the base's, by Hugging Face name
/// ("model.layers.0.self_attn.q_proj.weight"), each made when it is asked for: f32 on the CPU, in the base's shape,
/// from the stored weight, dequantized exactly as llama.cpp does it. `base` and `model` must outlive the functions.
std::map<std::string, std::function<at::Tensor()>> merged_tensors(const Checkpoint& base, CausalLM& model);

}  // namespace retort
