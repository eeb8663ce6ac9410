// A run: from a recipe to trained, exported, gated, evaluated and reported files.
#pragma once

#include <filesystem>

#include "core/json.h"
#include "core/progress.h"
#include "recipes/recipe.h"

namespace retort {

struct RunOutcome {
  std::filesystem::path folder;
  Json report;           ///< report.json
  bool refused = false;  ///< the gate refused a file
};

/// Runs every stage. With `resume`, goes on in the newest unfinished folder of the same recipe. Errors as the stages
/// throw them; what was finished before stays in the folder.
RunOutcome run_recipe(const Recipe& recipe, bool resume, const ProgressSink& progress);

}  // namespace retort
