// Adapters in llama.cpp's GGUF form, apart from a model: for reading, and for those that no model holds.
#pragma once

#include <filesystem>

#include "adapters/products.h"
#include "export/gguf.h"

namespace retort {

/// Reads a GGUF LoRA adapter, any tensor type; `config` is the base's: it gives names, shapes and the order of rows.
/// Error(bad_input) naming file and key or tensor for another architecture, or what is no product.
ProductAdapter read_gguf_adapter(const std::filesystem::path& path, const ModelConfig& config);

/// Writes the adapter for llama.cpp's --lora at scale 1: scales are folded into B (the format knows one alpha a file),
/// rows of B lie as the base's rows do. Error(usage) where llama.cpp has no form for it on this base.
ExportedFile write_gguf_adapter(const std::filesystem::path& path, const ProductAdapter& adapter,
                                const ModelConfig& config, const Provenance& provenance);

}  // namespace retort
