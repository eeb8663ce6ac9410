#include "recipes/run_folder.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace retort {
namespace fs = std::filesystem;

static fs::path newest_unfinished(const fs::path& parent, const std::string& hash) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename();
    if (entry.is_directory() && !entry.is_symlink() && name.ends_with(fmt::format("-{}", hash.substr(0, 8))) &&
        !fs::exists(entry.path() / "report.json"))
      found.push_back(entry.path());
  }
  return found.empty() ? fs::path() : *std::max_element(found.begin(), found.end());
}

void check_run_folder(const Recipe& recipe) {
  const fs::path parent = recipe.output_dir / recipe.name;
  std::error_code ignored;
  fs::path nearest = fs::absolute(parent);
  while (!fs::exists(nearest, ignored)) nearest = nearest.parent_path();
  if (access((nearest / "").c_str(), W_OK | X_OK) != 0)
    fail(Exit::io, "{}: cannot make the run's folder: {}. Choose another output_dir", parent.string(),
         std::strerror(errno));
}

RunFolder open_run_folder(const Recipe& recipe, bool resume) {
  const fs::path parent = recipe.output_dir / recipe.name;
  std::error_code error;
  fs::create_directories(parent, error);
  if (error)
    fail(Exit::io, "{}: cannot make the run's folder: {}. Choose another output_dir", parent.string(), error.message());
  RunFolder folder;
  if (resume) folder.path = newest_unfinished(parent, recipe.hash);
  folder.resumed = !folder.path.empty();
  if (!folder.resumed) {
    const std::time_t now = std::time(nullptr);
    const std::string stem = fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(now));
    // Two runs of one recipe in one second: the second waits for the next name instead of sharing the folder.
    for (int n = 0;; ++n) {
      folder.path = parent / fmt::format("{}{}-{}", stem, n ? fmt::format(".{}", n) : "", recipe.hash.substr(0, 8));
      if (fs::create_directory(folder.path, error)) break;
      if (error) fail(Exit::io, "{}: cannot make the run's folder: {}", folder.path.string(), error.message());
    }
  }
  folder.lock = std::make_unique<FileLock>(folder.path / ".lock", /*wait=*/false);
  if (!fs::exists(folder.path / "recipe.yaml")) write_atomic(folder.path / "recipe.yaml", recipe.text);
  return folder;
}

void mark_latest(const RunFolder& folder) {
  const fs::path link = folder.path.parent_path() / "latest";
  const fs::path temporary = folder.path.parent_path() / fmt::format(".latest.{}", getpid());
  std::error_code ignored;
  fs::remove(temporary, ignored);
  if (symlink(folder.path.filename().c_str(), temporary.c_str()) != 0 || rename(temporary.c_str(), link.c_str()) != 0)
    fail(Exit::io, "{}: cannot point it to the run: {}", link.string(), std::strerror(errno));
}

}  // namespace retort
