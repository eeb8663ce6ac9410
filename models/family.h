// A model family: how its configuration is written in config.json and in GGUF, and the one map between both tensor
// names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/config.h"
#include "models/gguf.h"

namespace retort {

/// One tensor that a checkpoint of this configuration holds.
struct TensorSpec {
  std::string name;  ///< Hugging Face's
  std::string gguf;
  std::vector<int64_t> shape;
  int64_t permuted_heads = 0;  ///< > 0: GGUF stores the rows of each of so many heads in another order
};

/// One file in models/families/ that defines `extern const Family family_<name>`.
struct Family {
  const char* name;
  std::vector<std::string> model_types;    ///< config.json's model_type
  std::vector<std::string> architectures;  ///< GGUF's general.architecture; the first one is written
  /// Both throw Error(bad_input) naming `where` and the key for what is missing, contradictory or not supported:
  /// nothing that changes the model is ignored.
  ModelConfig (*from_hf)(const Json& config, const std::string& where);
  ModelConfig (*from_gguf)(const GgufFile& file);
  /// Every tensor of the model, in the order in which they are written. A tied head is not listed.
  std::vector<TensorSpec> (*tensors)(const ModelConfig& config);
  /// The keys "<architecture>.*" that llama.cpp needs, general.architecture among them.
  void (*write_metadata)(const ModelConfig& config, GgufWriter& writer);
};

/// Error(bad_input) with the families there are when none matches. `where` names the file.
const Family& family_of_model_type(const std::string& model_type, const std::string& where);
const Family& family_of_architecture(const std::string& architecture, const std::string& where);
/// By ModelConfig::family.
const Family& family_of(const ModelConfig& config);

/// Row i of the GGUF tensor is Hugging Face's row order[i]; empty when the order is the same.
std::vector<int64_t> rows_to_gguf(const TensorSpec& spec);
/// Row i of the Hugging Face tensor is the GGUF tensor's row order[i]; empty when the order is the same.
std::vector<int64_t> rows_to_hf(const TensorSpec& spec);

}  // namespace retort
