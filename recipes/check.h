// What a run would do, without doing it: every error it would meet, and the plan.
#pragma once

#include <string>

#include "core/json.h"
#include "core/progress.h"
#include "recipes/recipe.h"

namespace retort {

/// Fetches, opens, encodes and attaches exactly as a run does, then stops. Errors as the run would throw them.
/// {"model", "targets": [{"name", "count", "rank"}], "parameters": {"trainable", "frozen"}, "data": {"ledger", …},
/// "plan": …}
Json check_recipe(const Recipe& recipe, const ProgressSink& progress);

/// The same for a reader at a terminal.
std::string describe_check(const Json& check);

}  // namespace retort
