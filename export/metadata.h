// Keys of exported GGUF files.
#pragma once

#include "export/gguf.h"
#include "models/gguf.h"

namespace retort {

/// Everything that llama.cpp, Ollama and LM Studio need beside the tensors: the base's architecture, vocabulary and
/// chat template (copied from a GGUF base, made for a Hugging Face folder), where the file comes from, and what the
/// importance matrix was collected on.
void set_model_metadata(GgufWriter& writer, const Checkpoint& base, const Provenance& provenance,
                        const Imatrix* imatrix);

/// The keys of a LoRA adapter for the architecture of `config`, without adapter.lora.alpha: its scale is 1.
void set_adapter_metadata(GgufWriter& writer, const ModelConfig& config, const Provenance& provenance);

}  // namespace retort
