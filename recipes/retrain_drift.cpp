#include "recipes/retrain_drift.h"

#include "core/error.h"
#include "data/text_input.h"
#include "monitor/alarm.h"
#include "monitor/slot.h"
#include "recipes/drift.h"
#include "recipes/prepare.h"
#include "registry/paired.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

Recipe watching(const Recipe& recipe, const WatchedModel& watched) {
  Recipe copy = recipe;
  copy.drift->model = watched.model.string();
  copy.drift->profile = watched.profile.string();
  copy.drift->state = watched.state.string();
  return copy;
}

}  // namespace

void make_profile(const Recipe& recipe, const WatchedModel& watched, const ProgressSink& progress) {
  if (fs::exists(watched.profile)) return;
  WatchedModel draft = watched;  // a profile appears when it is calibrated
  draft.profile += ".draft";
  const Recipe drafting = watching(recipe, draft);
  build_profile(drafting, progress);
  calibrate_profile(drafting, progress);
  fs::rename(draft.profile, watched.profile);
}

std::vector<TrafficRow> fresh_traffic(const Recipe& recipe, const fs::path& log, Day since, Day today,
                                      const ProgressSink& progress) {
  std::vector<TrafficRow> rows;
  if (!log.empty()) {
    const Stream<TrafficRow> stream = read_traffic(log);
    for (TrafficRow row; stream(row); row = {}) rows.push_back(std::move(row));
  } else if (recipe.drift) {
    rows = traffic_of(with_local_paths(recipe, recipe.drift->traffic, progress), recipe.drift->order);
  }
  std::erase_if(rows, [&](const TrafficRow& row) { return row.day && (*row.day < since || *row.day > today); });
  return rows;
}

std::optional<int64_t> last_looked_at(const Recipe& recipe, const WatchedModel& watched, const ProgressSink& progress) {
  const Recipe copy = watching(recipe, watched);
  const DriftOptions& options = *copy.drift;
  const DriftSetup setup = set_up_drift(copy, progress);
  const auto past = read_alarm(
      watched.state, {.average_run_length = options.average_run_length, .baseline = own_profile(setup).second});
  if (!past || past->history().empty()) return std::nullopt;
  return past->history().back().slot;
}

std::vector<TrafficRow> rows_from(std::vector<TrafficRow> rows, const std::string& unit, int64_t slot, Day today) {
  std::erase_if(
      rows, [&](const TrafficRow& row) { return slot_number(unit, slot_name(unit, row.day.value_or(today))) < slot; });
  return rows;
}

Json watch(const Recipe& recipe, const WatchedModel& watched, std::vector<TrafficRow> rows, Day today,
           const fs::path& out, const ProgressSink& progress) {
  if (rows.empty()) return nullptr;
  return check_drift(watching(recipe, watched),
                     {.data = {},
                      .rows = std::move(rows),
                      .slot = {},
                      .today = today,
                      .state = {},
                      .metrics = {},
                      .out = out,
                      .deployed = {}},
                     progress);
}

Json drift_evidence(const Json& drift) {
  Json evidence{{"alarm", drift["decision"]["alarm"] == Json(true)},
                {"reasons", drift["decision"]["reasons"]},
                {"notes", drift["notes"]},
                {"average_run_length", drift["average_run_length"]}};
  if (drift["slots"].empty()) return evidence;
  const Json& slot = drift["slots"].back();
  for (const char* key : {"slot", "rows", "level", "signals"})
    if (slot.contains(key)) evidence[key] = slot[key];
  return evidence;
}

std::optional<bool> is_harmful(const std::vector<TrafficRow>& rows, double before, double harm) {
  int64_t labelled = 0, right = 0;
  for (const TrafficRow& row : rows) {
    if (!row.answer || !row.label) continue;
    ++labelled;
    right += trim(*row.answer) == trim(*row.label);
  }
  if (labelled == 0) return std::nullopt;
  const ConfidenceBounds now = clopper_pearson(right, labelled, 0.05);
  if (now.high < before - harm) return true;
  if (now.low >= before - harm) return false;
  return std::nullopt;
}

}  // namespace retort
