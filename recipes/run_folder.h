// Where a run lives: runs/<name>/<UTC time>-<hash8>/.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/files.h"
#include "recipes/recipe.h"

namespace retort {

/// One run's folder, locked against a second process for as long as the object lives.
struct RunFolder {
  std::filesystem::path path;
  bool resumed = false;
  std::unique_ptr<FileLock> lock;
};

/// A new folder with recipe.yaml in it; or, with `resume`, the newest folder of the same recipe that has no report yet
/// (a new one when there is none). Error(retry) when another process works in it, Error(io) when it cannot be made.
RunFolder open_run_folder(const Recipe& recipe, bool resume);

/// Error(io) when open_run_folder could not make a folder; makes nothing.
void check_run_folder(const Recipe& recipe);

/// Makes runs/<name>/latest point to this folder, atomically.
void mark_latest(const RunFolder& folder);

}  // namespace retort
