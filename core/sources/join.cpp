// A file that its publisher cut into pieces: each is a source of its own, and they are put together in order.
#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/source_kind.h"

namespace retort {
namespace {

constexpr const char* kForm = "join:SOURCE,SOURCE[,SOURCE...]";

bool accepts(const std::string& uri) { return uri.starts_with("join:"); }

Fetched fetch(const Source& source, const std::filesystem::path& work, const PullOptions& options) {
  std::vector<std::string> pieces;
  const std::string list = source.uri.substr(5);
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    pieces.push_back(list.substr(begin, end - begin));
    if (pieces.back().empty() || accepts(pieces.back())) refuse_form(source, kForm);
    begin = end + 1;
  }
  if (pieces.size() < 2) refuse_form(source, kForm);
  AtomicFile file(work / "file");
  Sha256 sha;
  for (const std::string& piece : pieces) {
    const std::filesystem::path path = pull({.uri = piece, .sha256 = "", .name = ""}, options);
    if (std::filesystem::is_directory(path)) fail(Exit::usage, "{}: {} is a folder, not a file", source.uri, piece);
    const auto mapped = MappedFile::open(path);
    file.write(mapped->bytes());
    sha.update(mapped->bytes());
  }
  file.commit();
  return {.file = work / "file", .sha256 = sha.hex(), .parts = {}};
}

}  // namespace

extern const SourceKind source_join;
const SourceKind source_join = {kForm, false, accepts, fetch};

}  // namespace retort
