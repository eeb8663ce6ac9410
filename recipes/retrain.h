// `retort retrain`: one slot of a scheduled job, from the lock to the exit code.
//
// Everything of a slot lies in <output_dir>/retrain/<first 12 digits of its key>/: the run, the traffic's check, the
// verdict and its report. A dead run leaves files there that the next call with the same key goes on from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/json.h"
#include "core/progress.h"
#include "recipes/recipe.h"

namespace retort {

struct RetrainRequest {
  std::string slot;               ///< empty: the one of `now`, in retrain.slot's unit
  std::optional<int64_t> now;     ///< seconds since 1970; nothing: this machine's clock
  std::filesystem::path traffic;  ///< a serving log; empty: drift.traffic
  bool force = false;             ///< due whatever is_due() says
  bool check = false;             ///< only say whether one is due: nothing is written, and no known verdict repeated
};

struct RetrainOutcome {
  std::filesystem::path folder;  ///< empty after a check
  Json verdict;                  ///< "decision", "exit", "reasons", … (docs/operations.md)
};

/// The verdict of the slot: that which is recorded for its key, else a new one, which is recorded. Errors as
/// the stages throw them, after which the same call goes on; Error(retry) while another process retrains this model;
/// Error(usage) for a recipe that cannot come to a verdict.
RetrainOutcome retrain(const Recipe& recipe, const RetrainRequest& request, const ProgressSink& progress);

}  // namespace retort
