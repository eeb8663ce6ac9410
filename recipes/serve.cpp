#include "recipes/serve.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "adapters/peft.h"
#include "core/error.h"
#include "core/sources.h"
#include "export/gguf.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "retort-XXXXXX").string();
    if (!mkdtemp(name.data())) fail(Exit::io, "{}: cannot make a temporary folder: {}", name, std::strerror(errno));
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

}  // namespace

std::unique_ptr<ServedModel> serve(const fs::path& model, const std::string& adapter, ServedOptions options) {
  options.adapter.clear();
  if (!adapter.empty()) options.adapter = pull({.uri = adapter, .sha256 = "", .name = ""});
  if (!fs::is_directory(options.adapter)) return ServedModel::open(model, options);
  const auto checkpoint = Checkpoint::open(model);
  const auto trained = CausalLM::load(*checkpoint, {});
  load_peft(options.adapter, *trained, checkpoint->hash());
  const TemporaryFolder folder;  // llama.cpp reads the whole adapter when it opens it
  options.adapter = folder.path / "adapter.gguf";
  export_gguf_adapter(options.adapter, *trained, {});
  return ServedModel::open(model, options);
}

}  // namespace retort
