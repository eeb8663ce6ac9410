// An adapter served in llama.cpp, however it is stored.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "models/served.h"

namespace retort {

/// Opens a GGUF model with `adapter`, a path or a source: nothing, a GGUF adapter, or a PEFT folder, which is checked
/// against the model as load_peft() does and handed to llama.cpp as a GGUF adapter in a temporary folder.
/// `options.adapter` is ignored. Errors: as pull, ServedModel::open, load_peft and export_gguf_adapter throw them.
std::unique_ptr<ServedModel> serve(const std::filesystem::path& model, const std::string& adapter,
                                   ServedOptions options);

}  // namespace retort
