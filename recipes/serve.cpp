#include "recipes/serve.h"

#include "adapters/peft.h"
#include "core/sources.h"
#include "export/gguf.h"
#include "export/types.h"

namespace retort {
namespace fs = std::filesystem;

ServableFile::ServableFile(const fs::path& model) : path_(model) {
  if (!fs::is_directory(model)) return;
  const auto checkpoint = Checkpoint::open(model);
  const auto loaded = CausalLM::load(*checkpoint, {});
  const std::string own = checkpoint->tensor(checkpoint->names().front()).type_name();
  folder_ = std::make_unique<TemporaryFolder>();
  path_ = *folder_ / "model.gguf";
  export_gguf(path_, *checkpoint, *loaded, gguf_type(own == "BF16" || own == "F16" ? own : "F32"), {});
}

std::unique_ptr<ServedModel> serve(const fs::path& model, const ServableFile& file, const std::string& adapter,
                                   ServedOptions options) {
  options.adapter.clear();
  if (!adapter.empty()) options.adapter = pull({.uri = adapter, .sha256 = "", .name = ""});
  if (!fs::is_directory(options.adapter)) return ServedModel::open(file.path(), options);
  const auto checkpoint = Checkpoint::open(model);
  const auto trained = CausalLM::load(*checkpoint, {});
  load_peft(options.adapter, *trained, checkpoint->hash());
  const TemporaryFolder folder;  // llama.cpp reads the whole adapter when it opens it
  options.adapter = folder / "adapter.gguf";
  export_gguf_adapter(options.adapter, *trained, {});
  return ServedModel::open(file.path(), options);
}

}  // namespace retort
