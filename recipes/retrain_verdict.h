// What a retraining decided, as it is kept, shown, counted and told.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

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

/// A folder with a verdict.
struct Attempt {
  std::filesystem::path path;
  int exit = 0;
  int64_t decided_at = 0;
  bool trained = false;  ///< it has a run in it
};
/// A model's attempts below `folder` that came to a verdict, the oldest first; several models may share a folder. One
/// that cannot be read is left out, with a warning.
std::vector<Attempt> decided_attempts(const std::filesystem::path& folder, const std::string& model);

/// Tells everyone of verdicts that have not been told, each channel for itself; what fails is told again the next time.
/// A channel that failed is not asked again in this call: it would only take longer. Returns what failed, for people.
std::vector<std::string> tell_verdicts(const NotifyOptions& options, const std::vector<Attempt>& attempts);

/// Makes room: checkpoints of runs with a verdict go, and attempts before the last `keep` and one, with a run and
/// without one counted apart. `now` stays. What was promoted lies in the registry, and so do all verdicts.
void tidy_attempts(const std::vector<Attempt>& attempts, int64_t keep, const std::filesystem::path& now);
/// Removes what dead processes left of attempts of this model that never came to a verdict, a week after they began.
void tidy_abandoned(const std::filesystem::path& folder, const std::string& model, const std::filesystem::path& now);
/// Whose attempt it is, before there is a verdict.
void mark_attempt(const std::filesystem::path& attempt, const std::string& model);

/// Revokes the router (monitor/router.h) when a verdict says that its small model serves no more, or that the traffic
/// has moved; once a verdict, so that a router that was calibrated since stays. A file that is missing is none yet.
void revoke_for(const Json& verdict, const std::filesystem::path& attempt, const std::filesystem::path& router);

/// What Prometheus is told of a verdict.
std::string retrain_metrics(const Json& verdict);

}  // namespace retort
