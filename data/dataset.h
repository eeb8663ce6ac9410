// Data sets: a kind reads rows from a file, a task (data/task.h) turns rows into chats. Everything streams.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/schema.h"
#include "data/example.h"
#include "data/task.h"

namespace retort {

/// One entry of a recipe's data.train or data.validation.
struct DatasetOptions {
  std::string kind;
  std::filesystem::path path;  ///< a local file or folder: whoever read the recipe has replaced a source's name by it
  std::map<std::string, std::string> options = {};  ///< the kind's own (DatasetKind::options)
  std::map<std::string, std::string> fields = {};   ///< our name -> the name in the file
  std::optional<TaskOptions> task = {};
  std::string split = {};             ///< of the task's split; empty: every row
  std::optional<int64_t> limit = {};  ///< keep this many rows, chosen by the hash of their key
};
const Schema<DatasetOptions>& schema_of(DatasetOptions*);

/// An option that only one kind has.
struct DatasetKindOption {
  const char* name;
  const char* otherwise;  ///< the value when it is not given
  const char* text;       ///< one line of documentation
  bool is_path = false;   ///< names a source or a file, as `path` does
  std::vector<const char*> one_of = {};
};

/// A file format. Each data/kinds/<name>.cpp defines `extern const DatasetKind dataset_<name>`.
struct DatasetKind {
  const char* summary;  ///< one line: what is read
  const char* fields;   ///< one line: the fields of its rows
  std::vector<DatasetKindOption> options;
  /// The files that the rows come from, for hashing. Error(io) or Error(bad_input) when one is missing.
  std::vector<std::filesystem::path> (*files)(const DatasetOptions&);
  /// The rows in file order; holds one record at a time. Errors: Error(bad_input) with file and line, entry or offset.
  Stream<Row> (*open)(const DatasetOptions&);
};

/// Every kind by name.
const std::map<std::string, const DatasetKind*>& dataset_kinds();
/// The value of one of the kind's own options, or its default.
std::string dataset_option(const DatasetOptions& options, const DatasetKind& kind, const std::string& name);

/// Rows as the file has them, with `fields` renamed; no task, split or limit. Error(usage) for an unknown kind or
/// option.
Stream<Row> open_rows(const DatasetOptions& options);
/// Chats: through the task where there is one, else from the fields `messages`, `prompt` and `completion`, or `text`.
Stream<Chat> open_chats(const DatasetOptions& options);

/// Replaces `path` and the kind's path-like options by what `resolve` makes of them (a source's name becomes its file).
void resolve_paths(DatasetOptions& options, const std::function<std::filesystem::path(const std::string&)>& resolve);
/// SHA-256 over the files' bytes and the options: equal hashes give equal chats.
std::string dataset_hash(const DatasetOptions& options);

}  // namespace retort
