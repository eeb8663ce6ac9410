// A model served in llama.cpp, however it and its adapter are stored.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/temporary_folder.h"
#include "models/served.h"

namespace retort {

/// What llama.cpp can read: a GGUF file itself, and for a Hugging Face folder one that is made of it, in the type of
/// its weights, and lives as long as the object.
class ServableFile {
 public:
  /// Errors as Checkpoint::open and export_gguf throw them.
  explicit ServableFile(const std::filesystem::path& model);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::unique_ptr<TemporaryFolder> folder_;
  std::filesystem::path path_;
};

/// Opens `file`, which was made of `model`, with `adapter`, a path or a source: nothing, a GGUF adapter, or a PEFT
/// folder, which is checked against the model as load_peft() does and handed to llama.cpp as a GGUF adapter in a
/// temporary folder. `options.adapter` is ignored. Errors: as pull, ServedModel::open, load_peft and
/// export_gguf_adapter throw them.
std::unique_ptr<ServedModel> serve(const std::filesystem::path& model, const ServableFile& file,
                                   const std::string& adapter, ServedOptions options);

}  // namespace retort
