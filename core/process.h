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

/// Runs argv[0], found on PATH, in `folder` (empty: the current one) with stdin closed, and waits. `output_file`: where
/// stdout goes instead of ProcessResult. Error(unavailable) when there is no such program; a failing program is no
/// Error.
ProcessResult run_program(const std::vector<std::string>& argv, const std::filesystem::path& folder = {},
                          const std::filesystem::path& output_file = {});

}  // namespace retort
