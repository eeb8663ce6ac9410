// Adapters on disk as PEFT keeps them: adapter_config.json and adapter_model.safetensors, and beside them retort.json,
// which says what base the adapter belongs to.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "adapters/attach.h"

namespace retort {

/// What an adapter was trained on; retort.json. Empty strings: not known.
struct AdapterOrigin {
  std::string base;            ///< path or URI of the base model; adapter_config.json's base_model_name_or_path
  std::string base_hash;       ///< Checkpoint::hash()
  std::string base_form = {};  ///< what it was quantized to while it was read (bnb_name); empty: it was not
  std::string template_hash;   ///< SHA-256 of the chat template's text
  std::string data_hash;       ///< PackedDataset::key() of the training data
};

/// adapter_config.json read and checked: everything in it that changes what the adapter computes is either held in
/// `options` or an Error(bad_input) that names file, key, what was found and what to do.
struct PeftConfig {
  AdapterOptions options;
  AdapterOrigin origin;
};
PeftConfig read_peft_config(const std::filesystem::path& folder);

/// Writes the model's adapters, in f32 and as PEFT itself would, so that PeftModel.from_pretrained and llama.cpp's
/// converter read them. `options` are those that attach was given. The folder appears whole or not at all.
void save_peft(const std::filesystem::path& folder, CausalLM& model, const AdapterOptions& options,
               const AdapterOrigin& origin);

/// A PEFT folder of tensors under their names in the file; `options` as config_json takes them.
void write_peft(const std::filesystem::path& folder, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                const AdapterOptions& options, const AdapterOrigin& origin);

struct LoadedAdapter {
  AdapterOptions options;
  AdapterOrigin origin;
  AttachReport report;
};

/// Attaches the adapter in `folder` to the model. Stricter than PEFT: Error(bad_input) for a target that matches
/// nothing, a tensor that is missing, unexpected, of another shape, no number type or not finite, and, when `base_hash`
/// is given and retort.json has one, for another base. On an error the model is left without adapters.
LoadedAdapter load_peft(const std::filesystem::path& folder, CausalLM& model, const std::string& base_hash = "");

}  // namespace retort
