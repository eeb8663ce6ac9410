// A challenger against the champion: both files answer the same held-out rows, and the gate decides.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "models/served.h"
#include "recipes/recipe.h"
#include "registry/gate.h"

namespace retort {

/// The recipe's evaluator that the gate compares by. Error(usage) naming retrain.gate when `evaluate` has none of that
/// name, or it gives no outcome a row.
const Evaluator& gate_evaluator(const Recipe& recipe);
/// Error(usage) for a retrain block that cannot come to a verdict: no exported GGUF file, no evaluator, a floor of
/// none.
void check_retrain(const Recipe& recipe);

/// What each row gave, in the evaluator's unit; nothing when it is no mean over rows.
std::vector<double> values_of(const Evaluation& evaluation);
/// The same, larger is better. Error(usage) for an evaluator that is no mean over rows.
std::vector<double> outcomes_of(const Evaluation& evaluation);

/// Leaves in both lists the rows that both files can read.
void keep_common(std::vector<EvaluationRow>& a, std::vector<EvaluationRow>& b);
/// Of the first `count` rows, `by` retrain.gate.slices.
std::vector<PromotionSlice> slices_of(const std::vector<EvaluationRow>& rows, size_t count, const std::string& by);
PromotionFloor floor_of(const std::string& name, const FloorOptions& limit, const Evaluation& evaluation);
/// `measure` is asked for the file's speed only where a limit is one of speed.
std::vector<PromotionLimit> limits_of(const PromotionOptions& gate, uint64_t bytes,
                                      const std::function<Speed()>& measure);

struct Judgement {
  PromotionVerdict verdict;
  Json evaluations;                ///< of both, as report.json has them: on "champion" and "challenger"
  std::optional<double> accuracy;  ///< the challenger's on the held-out rows, where the gate compares a share
};

/// Without a champion (an empty path) floors and limits alone decide.
Judgement judge(const Recipe& recipe, const std::filesystem::path& champion, const std::filesystem::path& challenger,
                const ProgressSink& progress);

}  // namespace retort
