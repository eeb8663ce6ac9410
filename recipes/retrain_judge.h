// A challenger against the champion: both files answer the same held-out rows, and the gate decides.
#pragma once

#include <filesystem>

#include "core/progress.h"
#include "recipes/recipe.h"
#include "registry/gate.h"

namespace retort {

/// The recipe's evaluator that the gate compares by. Error(usage) naming retrain.gate when `evaluate` has none of that
/// name, or it gives no outcome a row.
const Evaluator& gate_evaluator(const Recipe& recipe);
/// Error(usage) for a retrain block that cannot come to a verdict: no exported GGUF file, no evaluator, a floor of
/// none.
void check_retrain(const Recipe& recipe);

/// One outcome a row, larger is better: of an evaluator that is a mean over rows. Error(usage) for any other.
std::vector<double> outcomes_of(const Evaluation& evaluation);

struct Judgement {
  PromotionVerdict verdict;
  Json evaluations;                ///< of both, as report.json has them: on "champion" and "challenger"
  std::optional<double> accuracy;  ///< the challenger's on the held-out rows, where the gate compares a share
};

/// Without a champion (an empty path) floors and limits alone decide.
Judgement judge(const Recipe& recipe, const std::filesystem::path& champion, const std::filesystem::path& challenger,
                const ProgressSink& progress);

}  // namespace retort
