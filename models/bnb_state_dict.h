// The tensors that together are one weight in a folder that transformers and bitsandbytes wrote:
//   4 bits: weight (codes), weight.absmax, weight.quant_map, weight.nested_absmax, weight.nested_quant_map,
//           weight.quant_state.bitsandbytes__nf4 (JSON);    int8: weight, SCB, weight_format.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/safetensors.h"
#include "quant/quantized_tensor.h"

namespace retort {

/// A weight and the names of the tensors it is made of.
struct BnbStored {
  QuantizedTensor tensor;
  std::vector<std::string> names;
};

/// The weight `name` ("….q_proj.weight"), or nothing when it is a plain tensor. `find` returns nullptr for names that
/// there are not; `owner` keeps the codes' bytes. Error(bad_input) with the tensor's name for a state that contradicts
/// itself.
std::optional<BnbStored> read_bnb(const std::string& name,
                                  const std::function<const SafetensorsEntry*(const std::string&)>& find,
                                  std::shared_ptr<const void> owner);

/// The same way back; the tensors share the weight's bytes. Error(usage) for int8_blocks, which no file format has.
std::vector<std::pair<std::string, at::Tensor>> bnb_state_dict(const QuantizedTensor& tensor);

}  // namespace retort
