// GGUF files out of a trained model: merged and quantized by llama.cpp itself, or the adapter alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "adapters/options.h"
#include "export/imatrix.h"
#include "export/types.h"
#include "models/causal_lm.h"

namespace retort {

/// Where a file comes from, for its metadata. Empty strings are left out.
struct Provenance {
  std::string name = {};           ///< general.name
  std::string license = {};        ///< SPDX; empty: the base's own stays
  std::string base = {};           ///< path, URI or name of the base
  std::string base_hash = {};      ///< Checkpoint::hash()
  std::string data = {};           ///< what it was trained on
  std::string data_hash = {};      ///< PackedDataset::key()
  std::string chat_template = {};  ///< the Jinja text it was trained with, when that is not the base's own
  std::string version = {};        ///< of Retort
};

struct ExportedFile {
  std::filesystem::path path;
  std::string format;  ///< gguf | gguf_adapter
  std::string type;    ///< "Q4_K_M"; of an adapter: F32
  int64_t bytes = 0;
  double bits_per_weight = 0;  ///< over all tensors
};

struct GgufOptions {
  const Imatrix* imatrix = nullptr;  ///< nullptr: none
  int threads = 0;                   ///< 0: the machine's
  /// Sees the merged model, a GGUF file with every changed weight in F32, before it is quantized. Not for type F32.
  std::function<void(const std::filesystem::path&)> on_merged = {};
};

/// Bytes of free disk that export_gguf needs beside its result: but for F32, the merged model lies there before it is
/// quantized.
int64_t export_scratch_bytes(const Checkpoint& base, CausalLM& model, const GgufType& type);

/// Writes the base with the model's adapters merged in, quantized by llama.cpp's own llama_model_quantize: mixes,
/// fallbacks and blocks are llama-quantize's. Beside an adapter, weights that none changes keep the base's quantized
/// blocks byte for byte, whatever the type (F32, F16 and BF16 hold numbers, not blocks). Metadata and vocabulary come
/// from the base. `path` appears whole or not at all: Error(io) for a full disk or an unwritable folder,
/// Error(bad_input) with llama.cpp's words for a base it cannot quantize.
ExportedFile export_gguf(const std::filesystem::path& path, const Checkpoint& base, CausalLM& model,
                         const GgufType& type, const Provenance& provenance, const GgufOptions& options = {});

/// Error(usage) when llama.cpp's adapter format cannot hold such an adapter on these modules, or no merged file can.
/// Call them before training.
void check_gguf_adapter(const ModelConfig& config, const AdapterOptions& options,
                        const std::vector<std::string>& targets);
void check_merged_gguf(const AdapterOptions& options, const std::vector<std::string>& targets);

/// Writes the adapters for llama.cpp's --lora at scale 1: the scale is folded into B (the format knows one alpha a
/// file), rows of B lie as the base's rows do.
ExportedFile export_gguf_adapter(const std::filesystem::path& path, CausalLM& model, const Provenance& provenance);

}  // namespace retort
