// Other programs: an argument vector, never a shell.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace retort {

struct ProcessResult {
  int status = 0;      ///< exit status; 128 + n after signal n
  std::string output;  ///< the last MiB of stdout
  std::string errors;  ///< the last MiB of stderr
};

/// Where a program's streams lead, and how long it may take.
struct ProcessOptions {
  std::filesystem::path output_file = {};  ///< stdout goes there instead of into ProcessResult
  std::filesystem::path input_file = {};   ///< is its stdin; empty: nothing is
  double seconds = 0;                      ///< then it and its children are killed (status 137); 0: never
};

/// Runs argv[0], found on PATH, in `folder` (empty: the current one), and waits. Error(unavailable) when there is no
/// such program; a failing program is no Error.
ProcessResult run_program(const std::vector<std::string>& argv, const std::filesystem::path& folder = {},
                          const ProcessOptions& options = {});

}  // namespace retort
