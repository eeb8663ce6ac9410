// An ordinary Hugging Face folder: config.json, weights in safetensors, tokenizer, chat template.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/gguf_vocabulary.h"
#include "export/gguf.h"
#include "models/causal_lm.h"

namespace retort {

/// What a merge's tensors make of the base's configuration: an adapter on a tied head gives the model a head of its
/// own; a bias where the base has none comes with zeros for the layers that have no such adapter.
ModelConfig merged_config(ModelConfig config, const std::map<std::string, std::function<at::Tensor()>>& merged);

/// config.json for a model of the shape `config` that comes from `base`: a folder's own file with the sizes replaced,
/// or a GGUF file's metadata in transformers' words. Error(usage) for rotary factors that it has no words for.
Json hf_config(const Checkpoint& base, const ModelConfig& config);

/// tokenizer.json and the like: a folder's own files, or those that are made of a GGUF file's vocabulary.
void write_hf_tokenizer(const std::filesystem::path& folder, const Checkpoint& base);

struct HfFolderOptions {
  std::string type = {};                       ///< F32, BF16 or F16; empty: a folder's own, F32 for a GGUF base
  std::string chat_template = {};              ///< Jinja, instead of the base's own
  const GgufVocabulary* vocabulary = nullptr;  ///< instead of the base's own; nullptr: that one
  std::map<std::string, Json> with = {};       ///< more files: name -> content
  int64_t shard_bytes = 5'000'000'000;         ///< of one weights file
};

/// The type that is written. Error(usage) for another than those three, and for a base that no such folder can be made
/// of. Call it before training.
std::string hf_type(const Checkpoint& base, const std::string& type);

/// Writes the base with the model's adapters merged in. The folder is read back before it gets its name: every weight
/// must be there bit for bit, and the tokenizer must give the tokens of the base's (with another vocabulary: the text)
/// for hard texts; Error(gate_refused) says what differs. It appears whole or not at all, and replaces an older one.
ExportedFile export_hf_folder(const std::filesystem::path& folder, const Checkpoint& base, CausalLM& model,
                              const HfFolderOptions& options = {});

}  // namespace retort
