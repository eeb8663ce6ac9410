// What a retraining decided, as it is kept, shown, counted and told.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "recipes/retrain_options.h"

namespace retort {

/// How a slot can end. Each has a name in verdict.json and an exit code (docs/operations.md).
enum class Decision {
  nothing_due,    ///< 0
  due,            ///< 10: asked without training
  rolled_back,    ///< 10: the alarm took the last promotion back
  promoted,       ///< 11
  rejected,       ///< 12
  inconclusive,   ///< 13
  guard_refused,  ///< 20
  contaminated,   ///< 21
  gate_refused,   ///< 22: of the export
};
const char* name_of(Decision decision);
int exit_of(Decision decision);

/// report.json and report.html of a verdict in `folder`, then verdict.json: whoever finds that finds all.
void write_verdict(const std::filesystem::path& folder, const Json& report);

/// Tells everyone of the model's verdicts below `folder` that have not been told; what fails is told again the next
/// time. Returns what failed, for people.
std::vector<std::string> tell_verdicts(const NotifyOptions& options, const std::filesystem::path& folder,
                                       const std::string& model);

/// Makes room below `folder`: checkpoints of the model's runs with a verdict go, and exported files of all but the last
/// run and `keep` before it. What was promoted lies in the registry; reports and verdicts stay.
void tidy_attempts(const std::filesystem::path& folder, const std::string& model, int64_t keep);

/// What Prometheus is told of a verdict.
std::string retrain_metrics(const Json& verdict);

}  // namespace retort
