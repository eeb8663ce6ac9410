// A file inside a Debian package, by apt-get: the user's own sources and keys hold, nothing is installed, no root is
// needed.
#include <re2/re2.h>

#include "core/error.h"
#include "core/process.h"
#include "core/source_kind.h"

namespace retort {
namespace {

constexpr const char* kForm = "deb:NAME[=VERSION]!path/in/package";

bool accepts(const std::string& uri) { return uri.starts_with("deb:"); }

Fetched fetch(const Source& source, const std::filesystem::path& work, const PullOptions&) {
  const auto [package, path] = split_archive_uri(source.uri.substr(4), source, kForm);
  static const RE2 form("[a-z0-9][a-z0-9+.-]*(=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?");
  if (!RE2::FullMatch(package, form)) refuse_form(source, kForm);
  const ProcessResult result = run_program({"apt-get", "download", package}, work);
  if (result.status != 0) {
    const bool no_lists = result.errors.find("Unable to locate package") != std::string::npos;
    fail(Exit::unavailable, "{}: apt-get download failed: {}{}", source.uri, last_words(result.errors),
         no_lists ? " (are the package lists there? apt-get update)" : "");
  }
  for (const auto& entry : std::filesystem::directory_iterator(work)) {
    if (entry.path().extension() != ".deb") continue;
    const std::filesystem::path tar = work / "data.tar";
    const ProcessResult unpacked =
        run_program({"dpkg-deb", "--fsys-tarfile", entry.path().string()}, {}, {.output_file = tar});
    if (unpacked.status != 0) fail(Exit::bad_input, "{}: {}", source.uri, last_words(unpacked.errors));
    extract_entry(tar, path, work / "file", source.uri);
    return {.file = work / "file", .sha256 = "", .parts = {}};
  }
  fail(Exit::unavailable, "{}: apt-get download brought no package", source.uri);
}

}  // namespace

extern const SourceKind source_deb;
const SourceKind source_deb = {kForm, false, accepts, fetch};

}  // namespace retort
