// What names a teacher in a cache: the hash of its tensors and the type of its weights.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/gguf.h"
#include "quant/quantized_tensor.h"

namespace retort {

/// SHA-256 over sorted names, types, shapes and bytes of a GGUF file's tensors, of whatever architecture.
std::string hash_of(const GgufFile& file);

/// SHA-256 over the files of a PEFT folder that say what the adapter computes.
std::string hash_of_adapter(const std::filesystem::path& folder);

/// The type that holds most of the weights: "Q4_K".
std::string main_type(const std::vector<QuantizedTensor>& tensors);

}  // namespace retort
