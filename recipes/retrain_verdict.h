// What a retraining decided, as it is kept, shown, counted and told.
#pragma once

#include <filesystem>
#include <string>

#include "core/json.h"
#include "recipes/recipe.h"

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

/// What the registry keeps of a model for its card: of the run's report the base, the adapter, the rows' ledger and
/// hashes, what the guards found, training and environment with the seed; of `file`, its entry there, the export's
/// gate; of `verdict` why a new model was due and the drift; and from the recipe the licence ("unknown" without one).
Json card_info(const Recipe& recipe, const Json& report, const Json& file, const Json& verdict);

/// Revokes the router (monitor/router.h) when a verdict says that its small model serves no more, or that the traffic
/// has moved; once a verdict, so that a router that was calibrated since stays. A file that is missing is none yet.
void revoke_for(const Json& verdict, const std::filesystem::path& attempt, const std::filesystem::path& router);

/// What Prometheus is told of a verdict.
std::string retrain_metrics(const Json& verdict);

}  // namespace retort
