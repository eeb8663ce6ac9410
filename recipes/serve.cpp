#include "recipes/serve.h"

#include "adapters/peft.h"
#include "core/sources.h"
#include "core/temporary_folder.h"
#include "export/gguf.h"

namespace retort {
namespace fs = std::filesystem;

std::unique_ptr<ServedModel> serve(const fs::path& model, const std::string& adapter, ServedOptions options) {
  options.adapter.clear();
  if (!adapter.empty()) options.adapter = pull({.uri = adapter, .sha256 = "", .name = ""});
  if (!fs::is_directory(options.adapter)) return ServedModel::open(model, options);
  const auto checkpoint = Checkpoint::open(model);
  const auto trained = CausalLM::load(*checkpoint, {});
  load_peft(options.adapter, *trained, checkpoint->hash());
  const TemporaryFolder folder;  // llama.cpp reads the whole adapter when it opens it
  options.adapter = folder / "adapter.gguf";
  export_gguf_adapter(options.adapter, *trained, {});
  return ServedModel::open(model, options);
}

}  // namespace retort
