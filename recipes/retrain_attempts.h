// The folders in which retraining tries: who has a verdict, who has been told of it, what may go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace retort {

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

}  // namespace retort
