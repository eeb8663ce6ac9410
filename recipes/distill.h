// The stages that a `distill:` block adds to a run: caches are filled before training, and the student is held against
// its teachers before and after.
#pragma once

#include <memory>

#include "core/json.h"
#include "core/progress.h"
#include "distill/logit_cache.h"
#include "models/causal_lm.h"
#include "monitor/evaluator.h"
#include "recipes/prepare.h"
#include "recipes/recipe.h"
#include "recipes/serve.h"
#include "trainer/distillation.h"

namespace retort {

struct CalledTeacher;

/// The student's own answers: `base` in llama.cpp with `model`'s adapters as they were at the latest of the refreshes
/// that `state` counts. Errors as export_gguf_adapter and ServedModel::open throw them, and served_continuations.
Continue student_answers(std::shared_ptr<const ServableFile> base, CausalLM& model, const OnPolicyChoice& choice,
                         int threads, std::shared_ptr<ObjectiveState> state);

/// What training needs of the teachers.
struct Distillation {
  Objective objective;
  std::shared_ptr<ObjectiveState> state;
  Json identity = Json::object();  ///< what a resumed run must share: teachers and how they are used
  Json report = Json::object();    ///< report["distill"] but for "before" and "after"
  std::vector<std::shared_ptr<CalledTeacher>> teachers = {};  ///< in the recipe's order, opened once
  std::vector<std::shared_ptr<void>> kept = {};               ///< texts that the objective reads
};

/// Opens every teacher and checks that it speaks the student's vocabulary; fills the caches that lack a row of the
/// recipe's training data. `model` is the student, with or without its adapters. Errors as open_teacher, capture and
/// LogitCache::open throw them.
Distillation open_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                               const ProgressSink& progress);

struct CheckedTeachers {
  Json json;  ///< [{"teacher", "engine", "quantization", "vocabulary", "cache"}]; "cache" is null for one asked online
  std::vector<std::shared_ptr<void>> held;  ///< what training holds of them, brought into memory as a step does
};
/// For `retort check`: every error that open_distillation would meet before it fills a cache. Teachers that training
/// asks are asked about one micro-batch and stay open, so that plan_training finds them in memory.
CheckedTeachers check_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                                   const ProgressSink& progress);

/// `retort cache-teacher`: fills this share of every teacher's cache. [{"teacher", "folder", "documents", …}].
Json fill_caches(const Recipe& recipe, const Prepared& prepared, CausalLM& model, CacheShare share,
                 const ProgressSink& progress);

/// The recipe's evaluators on every teacher that llama.cpp runs and that has the student's tokens; appends to
/// report["evaluate"].
void evaluate_teachers(const Recipe& recipe, const Prepared& prepared, const Distillation& distillation,
                       const std::vector<EvaluationRow>& rows, Json& report, const ProgressSink& progress);

/// How far the student is from each teacher on the held-out rows, with all of both models' logits:
/// [{"divergence", "cross_entropy", "agreement", …}], or over the stretches of text that both cut where the
/// vocabularies differ; null for recorded answers, and without held-out rows.
Json against_teachers(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const Distillation& distillation,
                      const ProgressSink& progress);

/// Gives back the memory of those that training does not ask: their words are in a cache.
void close_cached_teachers(const Recipe& recipe, Distillation& distillation);

}  // namespace retort
