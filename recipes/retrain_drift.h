// Drift as a retraining sees it: the champion and its own profile instead of those that the recipe names.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "core/progress.h"
#include "monitor/traffic.h"
#include "recipes/recipe.h"

namespace retort {

/// A model's file, its profile, and the alarm's state, which is one a profile.
struct WatchedModel {
  std::filesystem::path model, profile, state;
};

/// Profiles a model that may become champion, and calibrates the profile; one that is there stays.
void make_profile(const Recipe& recipe, const WatchedModel& watched, const ProgressSink& progress);

/// Fresh traffic: the serving log, or drift.traffic when there is no log; of the days `since` to `today` where rows
/// have a time.
std::vector<TrafficRow> fresh_traffic(const Recipe& recipe, const std::filesystem::path& log, Day since, Day today,
                                      const ProgressSink& progress);

/// Number of the last slot of drift.slot that the model's alarm has looked at; nothing before the first.
std::optional<int64_t> last_looked_at(const Recipe& recipe, const WatchedModel& watched, const ProgressSink& progress);
/// Rows of this slot and later ones; those without a time are of `today`.
std::vector<TrafficRow> rows_from(std::vector<TrafficRow> rows, const std::string& unit, int64_t slot, Day today);

/// What `retort drift check` says of these rows against the model, and null without rows. Without a state (an empty
/// path) they are judged alone. report.json and report.html lie in `out`.
Json watch(const Recipe& recipe, const WatchedModel& watched, std::vector<TrafficRow> rows, Day today,
           const std::filesystem::path& out, const ProgressSink& progress);

/// What is kept of the "drift" of such a report: the alarm, why, its level against the average run length, and every
/// signal of the last slot with effect and p-value.
Json drift_evidence(const Json& drift);

/// Whether labelled answers are right less often than `before` by more than `harm`, with 95 % confidence either way;
/// nothing when that cannot be told.
std::optional<bool> is_harmful(const std::vector<TrafficRow>& rows, double before, double harm);

}  // namespace retort
