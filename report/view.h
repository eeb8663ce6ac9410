// What the page says, as texts: the template only lays it out.
#pragma once

#include <string>
#include <vector>

#include "core/json.h"

namespace retort {

/// "shipped:Q4_K_M" is "Shipped Q4_K_M".
std::string model_label(const std::string& on);
/// Evaluations of one figure on one data set, in the order teacher, base, trained, shipped.
struct EvaluationGroup {
  std::string label, data;
  bool share = false;  ///< 0 to 1, shown in per cent
  int better = 0;      ///< 1: higher is, -1: lower is, 0: neither
  std::vector<const Json*> entries;
  /// The first entry of a model whose name begins so, or nullptr.
  const Json* on(const std::string& prefix) const;
};
std::vector<EvaluationGroup> evaluation_groups(const Json& report);
/// The evaluation that the top of the page speaks of, or null.
Json evaluation_tile(const std::vector<EvaluationGroup>& groups);
Json evaluations_view(const std::vector<EvaluationGroup>& groups);
Json evaluation_charts(const std::vector<EvaluationGroup>& groups);

/// Everything that the template shows, formatted but not escaped. Parts that the report has no figures for are absent.
Json report_view(const Json& report);
/// The part of it that shows sample rows: {before, after, rows}, or null without samples.
Json samples_view(const Json& report);
/// The part that shows teachers and student: {facts, teachers}, or null for a run without a teacher.
Json distill_view(const Json& report);
/// The part that shows traffic against a baseline, or null; and what the top of the page says of it.
Json drift_view(const Json& report);
Json drift_title(const Json& report);
Json drift_tiles(const Json& report);
Json drift_charts(const Json& report);
/// The part that shows a router on held-out rows, or null; and what the top of the page says of it.
Json router_view(const Json& report);
Json router_title(const Json& report);
Json router_tiles(const Json& report);
/// The part that shows what a slot of a retraining decided, or null; and what the top of the page says of it.
Json retrain_view(const Json& report);
Json retrain_title(const Json& report);
Json retrain_tiles(const Json& report);
/// The part that shows what the guards found: {facts, rules, limits}, or null for a run without guards.
Json guards_view(const Json& report);
/// The numbers that the page's script draws.
Json report_charts(const Json& report);

}  // namespace retort
