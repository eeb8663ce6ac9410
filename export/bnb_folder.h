// A Hugging Face folder whose linear layers are in one of bitsandbytes' formats, as transformers reads it.
#pragma once

#include <filesystem>

#include "models/checkpoint.h"
#include "quant/bnb.h"

namespace retort {

/// Writes config.json, model.safetensors and the tokenizer's files (write_hf_tokenizer). The matrices of the blocks are
/// quantized one after another; the rest keeps its type, but for GGUF's blocks, which become f32. The folder appears
/// whole or not at all. Error(usage) for int8_blocks, for a base that is quantized by bitsandbytes already, and for a
/// GGUF file whose rotary factors config.json has no words for.
void export_bnb_folder(const std::filesystem::path& folder, const Checkpoint& base, const BnbOptions& options);

}  // namespace retort
