// Rows through all guards in one pass: looked at in blocks on all threads, decided about in order, so that the outcome
// does not depend on the number of threads.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/json.h"
#include "data/guard.h"

namespace retort {

/// What the guards found, by guard and rule.
struct GuardTotals {
  struct Rule {
    std::string action;
    int64_t findings = 0, rows = 0;
  };
  int64_t rows = 0, kept = 0, changed = 0, dropped = 0, refused = 0;
  std::map<std::string, std::map<std::string, Rule>> rules;

  Json to_json() const;
};
/// Error(bad_input) naming `where`.
GuardTotals guard_totals_from(const Json& json, const std::string& where);

struct GuardPass {
  GuardSource rows;
  GuardsOptions options;
  GuardContext context;
  /// Hears one line of audit.jsonl for each finding, with its line end; may be empty. A line never holds a value.
  std::function<void(std::string_view line)> audit;
  /// False: rows that action: fail refuses are counted and left out instead of ending the pass.
  bool stop_at_refusal = true;
};

/// The rows that stay, as they are trained on. `totals` is complete when the stream has ended. Guards are made when the
/// first row is asked for.
/// Errors: Error(data_guard), or the kind's own code, naming the row that action: fail refuses; Error(data_guard) when
/// every row is dropped; Error(usage) for action: hash without a key.
Stream<Chat> guarded(const GuardPass& pass, std::shared_ptr<GuardTotals> totals);

/// Which code ends a pass that was not stopped: the first refusing kind's, contamination's before others; done for
/// none.
Exit refusal_of(const GuardTotals& totals);

/// SHA-256 over all that decides what guards do, beside the rows: options, the files that they name, the key.
std::string guards_hash(const GuardsOptions& options,
                        const std::function<std::filesystem::path(const std::string&)>& resolve);

/// Names and places were not looked for: what every report of guards must say.
extern const char* const guards_limits;

}  // namespace retort
