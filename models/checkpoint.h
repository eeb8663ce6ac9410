// A model on disk, GGUF file or Hugging Face folder, seen under one set of names: Hugging Face's.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/config.h"
#include "quant/quantized_tensor.h"

namespace retort {

class GgufFile;

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  /// Opens a GGUF file or a folder with config.json. Validates the container wholly (sizes, offsets, names, types,
  /// shapes against the config) before it returns; Error(bad_input) names file and tensor or key.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);

  virtual const ModelConfig& config() const = 0;
  virtual const std::filesystem::path& path() const = 0;
  virtual bool is_gguf() const = 0;
  /// The file behind it, for its metadata and vocabulary; nullptr for a folder.
  virtual const GgufFile* gguf() const = 0;
  /// Hugging Face names: "model.layers.0.self_attn.q_proj.weight", in the model's order. A tied head is not among them.
  virtual std::vector<std::string> names() const = 0;
  virtual bool has(const std::string& name) const = 0;
  /// The stored bytes with rows in Hugging Face's order (q and k of a llama GGUF are un-permuted, by whole rows).
  /// Weights that bitsandbytes quantized in a folder come in its formats.
  virtual QuantizedTensor tensor(const std::string& name) const = 0;
  /// The checkpoint whose tensors this one quantized while they were read; nullptr: none.
  virtual const Checkpoint* unquantized() const { return nullptr; }
  /// SHA-256 over sorted names, types, shapes and bytes in Hugging Face's row order, computed once an object; the same
  /// for a GGUF file and a folder that hold the same bytes.
  virtual std::string hash() const = 0;
};

}  // namespace retort
