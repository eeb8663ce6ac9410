// The recipe's `retrain:` block: when a new model is due, what it must not lose, and who is told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/schema.h"

namespace retort {

/// When a retraining is due: any of these. In a recipe: a mapping, or the expression alone.
struct WhenOptions {
  std::string expression;           ///< "drift", "drift and new_rows >= 500 or age_days > 90"; empty: not asked
  std::string every;                ///< "30d": the champion's age; empty: not asked
  std::optional<int64_t> new_rows;  ///< rows that the champion has not seen
};
void from_yaml(const Yaml& node, WhenOptions& when);
Json json_schema_of(WhenOptions*);
Json json_of(const WhenOptions& when);

/// "12h", "30d", "4w" in days. Error(usage) for anything else.
double days_of(const std::string& duration);

/// What an evaluator's value must keep, with confidence.
struct FloorOptions {
  std::optional<double> at_least, at_most;
};
const Schema<FloorOptions>& schema_of(FloorOptions*);

/// What a challenger must show on the held-out rows before it replaces the champion (registry/gate.h).
struct PromotionOptions {
  std::string evaluator;  ///< its name or kind in `evaluate`; empty: the first that looks at rows
  double margin = 0.02;   ///< in the evaluator's unit: how much worse counts as no worse
  double alpha = 0.05;
  std::string slices = "none";  ///< none | answer | file
  int64_t min_slice_rows = 30;  ///< smaller slices are not judged alone
  std::map<std::string, FloorOptions> floors;
  std::optional<int64_t> max_bytes;  ///< of the shipped file
  std::optional<double> max_first_token_seconds, min_tokens_per_second;
};
const Schema<PromotionOptions>& schema_of(PromotionOptions*);

struct NotifyOptions {
  std::vector<std::string> command;  ///< an argument vector; gets the verdict as JSON on stdin
  std::string webhook;               ///< a URL that gets it by POST
  bool when_nothing_is_due = false;
};
const Schema<NotifyOptions>& schema_of(NotifyOptions*);

struct RetrainOptions {
  std::string registry;  ///< folder; empty: <output_dir>/registry
  std::string model;     ///< its name there; empty: the recipe's
  std::string slot = "day";
  WhenOptions when{.expression = "drift", .every = {}, .new_rows = {}};
  int64_t min_new_rows = 1;
  std::optional<double> harm;  ///< loss of labelled accuracy below which drift is harmless
  PromotionOptions gate;
  int64_t watch_slots = 4;
  int64_t keep = 5;
  NotifyOptions notify;
  std::string metrics;
  std::string router;  ///< a router's file, revoked when its small model serves no more or the traffic moves
};
const Schema<RetrainOptions>& schema_of(RetrainOptions*);

}  // namespace retort
