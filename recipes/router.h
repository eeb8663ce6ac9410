// The router's rows from both models' own runs, and its report.
#pragma once

#include <filesystem>
#include <string>

#include "core/json.h"
#include "core/progress.h"
#include "monitor/router.h"
#include "recipes/recipe.h"

namespace retort {

struct RouteMeasurement {
  std::string small, large;       ///< GGUF files: paths or sources
  std::filesystem::path profile;  ///< of `retort drift profile` for the small model; empty: no distance to it
  std::filesystem::path out;      ///< the rows, JSON Lines (monitor/router.h)
  int64_t skip = 0, limit = 0;    ///< of the recipe's validation rows; 0: all
  int64_t max_tokens = 32;        ///< longest answer
};

/// Lets both models answer the recipe's validation rows and writes what read_route_rows() reads: whether each gave the
/// expected answer, what it cost (tokens times gigabytes of its file), and the small model's features:
///   prompt_bits_per_byte   of what was asked
///   first_token_entropy    of the answer's first token, nats
///   mean_log_p, min_log_p  of the greedy answer's tokens, its end included, nats
///   profile_distance       of the prompt's random features from the profile's mean
/// Returns {"rows", "small", "large"}: how many, and the means. Error(bad_input) when no row can be asked, or the
/// profile is of another model.
Json measure_routes(const Recipe& recipe, const RouteMeasurement& options, const ProgressSink& progress);

struct RouteEvaluation {
  std::filesystem::path router, data;
  std::filesystem::path small;  ///< the file that serves; empty: as the rows say
  std::filesystem::path drift;  ///< report.json of `retort drift check`; empty: none
  std::filesystem::path out;    ///< folder of report.json and report.html; empty: none is written
};

/// Evaluates a router on rows. Error(bad_input) when it is revoked or of other models. When the drift report says
/// alarm, the router is revoked and Error(drift) thrown.
Json evaluate_route(const RouteEvaluation& options);

}  // namespace retort
