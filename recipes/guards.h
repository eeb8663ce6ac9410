// The recipe's training rows through its guards (data.guards), and what is kept of that.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "data/guard_run.h"
#include "recipes/recipe.h"

namespace retort {

/// The pass over the training rows, without an audit. The files have local paths. Reads the rows that evaluators have
/// of their own; errors as load_harness_task() throws them.
GuardPass guard_pass(const Recipe& recipe, const std::vector<DatasetOptions>& train,
                     const std::vector<DatasetOptions>& validation, const ProgressSink& progress);

/// SHA-256 over what decides the rows that pass: both data sets' hashes, the rows that evaluators have of their own,
/// and all else that the guards depend on.
std::string guarded_hash(const GuardPass& pass, const std::string& train_hash, const std::string& validation_hash);

/// A pass whose totals and audit.jsonl are kept in cache_folder()/guards/<hash>: whoever finds his rows in a cache
/// finds there what the guards said about them.
class RecordedPass {
 public:
  RecordedPass(GuardPass pass, const std::string& hash);
  /// The rows that pass, to be read once. Their end writes the record. Errors as guarded() throws them, and Error(io).
  Stream<Chat> rows();
  /// The record; when nobody has read the rows and there is none, the guards run for it.
  GuardTotals totals();
  std::filesystem::path audit() const { return folder_ / "audit.jsonl"; }

 private:
  GuardPass pass_;
  std::filesystem::path folder_;
};

/// What `retort guard` does: every finding into the file `audit`, the rows that pass into `clean` (JSON Lines with
/// `messages` or `text`) unless it is empty. action: fail does not stop it; rows that it refuses are counted, and then
/// no clean rows are written. Needs no model.
GuardTotals run_guards(const Recipe& recipe, const std::filesystem::path& audit, const std::filesystem::path& clean,
                       const ProgressSink& progress);

/// "guards" of report.json: the totals, and what was not looked for.
Json guards_json(const GuardTotals& totals);
/// A line for each rule that found something, for a reader at a terminal.
std::string describe_guards(const Json& guards);

}  // namespace retort
