#include "recipes/retrain_verdict.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "monitor/open_metrics.h"
#include "monitor/router.h"
#include "recipes/notify.h"
#include "report/report.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

struct Ending {
  Decision decision;
  const char* name;
  int exit;
};
constexpr Ending kEndings[] = {
    {Decision::nothing_due, "nothing_due", 0},      {Decision::due, "due", 10},
    {Decision::rolled_back, "rolled_back", 10},     {Decision::promoted, "promoted", 11},
    {Decision::rejected, "rejected", 12},           {Decision::inconclusive, "inconclusive", 13},
    {Decision::guard_refused, "guard_refused", 20}, {Decision::contaminated, "contaminated", 21},
    {Decision::gate_refused, "gate_refused", 22},
};

const Ending& ending(Decision decision) {
  return *std::find_if(std::begin(kEndings), std::end(kEndings),
                       [&](const Ending& ending) { return ending.decision == decision; });
}

constexpr auto kAbandoned = std::chrono::days(7);

/// Runs of an attempt: <attempt>/<name>/<time>-<hash> with a report.
std::vector<fs::path> runs_of(const fs::path& attempt) {
  std::vector<fs::path> runs;
  std::error_code none;
  for (const auto& name : fs::directory_iterator(attempt, none)) {
    if (name.is_symlink(none) || !name.is_directory(none)) continue;
    for (const auto& run : fs::directory_iterator(name.path(), none))
      if (!run.is_symlink(none) && fs::exists(run.path() / "report.json", none)) runs.push_back(run.path());
  }
  return runs;
}

/// Tells one channel unless it knows; false when it could not be told.
bool tell(const NotifyOptions& options, Channel channel, const fs::path& attempt, std::vector<std::string>& failed) {
  const fs::path told = attempt / fmt::format("told.{}", name_of(channel));
  if (fs::exists(told)) return true;
  try {
    notify(options, channel, attempt / "verdict.json");
  } catch (const Error& error) {
    failed.push_back(error.what());
    return false;
  }
  write_atomic(told, "");
  return true;
}

}  // namespace

const char* name_of(Decision decision) { return ending(decision).name; }
int exit_of(Decision decision) { return ending(decision).exit; }

void write_verdict(const fs::path& folder, const Json& report) {
  write_json(folder / "report.json", report);
  write_atomic(folder / "report.html", render_report(report));
  write_json(folder / "verdict.json", report["retrain"]);
}

Json card_info(const Recipe& recipe, const Json& report, const Json& file, const Json& verdict) {
  Json info{{"name", report["name"]},
            {"retort", report["retort"]},
            {"license", recipe.license.empty() ? "unknown" : recipe.license},
            {"export", file}};
  for (const char* key : {"model", "adapter", "data", "guards", "train", "environment"})
    if (report.contains(key)) info[key] = report[key];
  if (info.contains("train")) info["train"].erase("curve");
  if (info.contains("model")) info["base_model"] = info["model"].value("hub_id", info["model"].value("source", ""));
  info["datasets"] = Json::array();
  for (const DatasetOptions& rows : recipe.data.train)
    info["datasets"].push_back(source_of(recipe, rows.path.string()).uri);
  info["guards"]["looked_for"] = json_of(recipe.data.guards);
  for (const char* key : {"due", "drift"})
    if (verdict.contains(key)) info[key] = verdict[key];
  if (info.contains("drift")) info["drift"].erase("report");  // beside the verdict's page, not beside the card
  return info;
}

std::vector<Attempt> decided_attempts(const fs::path& folder, const std::string& model) {
  std::vector<Attempt> attempts;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const fs::path file = entry.path() / "verdict.json";
    if (!fs::exists(file, none)) continue;
    try {
      const Json verdict = read_json(file);
      const std::string where = file.string();
      if (json_get<std::string>(verdict, "model", where) != model) continue;
      attempts.push_back({.path = entry.path(),
                          .exit = json_get<int>(verdict, "exit", where),
                          .decided_at = json_get<int64_t>(verdict, "decided_at", where),
                          .trained = verdict.contains("run")});
    } catch (const Error& error) {
      log::warn("{}; it is left out: remove the folder, the registry has the verdict", error.what());
    }
  }
  std::sort(attempts.begin(), attempts.end(), [](const Attempt& a, const Attempt& b) {
    return std::tie(a.decided_at, a.path) < std::tie(b.decided_at, b.path);
  });
  return attempts;
}

std::vector<std::string> tell_verdicts(const NotifyOptions& options, const std::vector<Attempt>& attempts) {
  std::vector<std::string> failed;
  std::vector<Channel> channels = channels_of(options);
  bool all = true;
  for (const Attempt& attempt : attempts) {
    if (fs::exists(attempt.path / "told")) continue;
    const bool silent = attempt.exit == 0 && !options.when_nothing_is_due;
    if (!silent)
      all &=
          std::erase_if(channels, [&](Channel channel) { return !tell(options, channel, attempt.path, failed); }) == 0;
    if (silent || all) write_atomic(attempt.path / "told", "");
  }
  return failed;
}

void tidy_attempts(const std::vector<Attempt>& attempts, int64_t keep, const fs::path& now) {
  std::error_code none;
  int64_t with_run = 0, without = 0;
  for (auto attempt = attempts.rbegin(); attempt != attempts.rend(); ++attempt) {
    int64_t& newer = attempt->trained ? with_run : without;
    if (newer++ > keep && attempt->path != now) {
      fs::remove_all(attempt->path, none);
      continue;
    }
    for (const fs::path& run : runs_of(attempt->path)) fs::remove_all(run / "checkpoints", none);
  }
}

void tidy_abandoned(const fs::path& folder, const std::string& model, const fs::path& now) {
  std::error_code none;
  const auto limit = fs::file_time_type::clock::now() - kAbandoned;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const fs::path mark = entry.path() / "model";
    if (entry.path() == now || fs::exists(entry.path() / "verdict.json", none)) continue;
    if (!fs::exists(mark, none) || fs::last_write_time(mark, none) > limit || read_text(mark) != model) continue;
    fs::remove_all(entry.path(), none);
  }
}

void mark_attempt(const fs::path& attempt, const std::string& model) { write_atomic(attempt / "model", model); }

void revoke_for(const Json& verdict, const fs::path& attempt, const fs::path& router) {
  const fs::path done = attempt / "router";
  if (router.empty() || fs::exists(done)) return;
  const std::string slot = verdict["slot"], decision = verdict["decision"];
  const Json& champion = verdict["champion"];
  const std::string serves = champion.is_object() ? champion["sha256"].get<std::string>() : "";
  const bool promoted = decision == name_of(Decision::promoted);
  const bool changed = promoted || decision == name_of(Decision::rolled_back);
  const bool alarm = verdict.contains("drift") && verdict["drift"]["alarm"] == Json(true);
  if (fs::exists(router)) {
    if (changed && read_router(router).source.small_sha256 != serves)
      revoke_router(router, fmt::format("{} in slot {}: {} serves", decision, slot, serves.substr(0, 12)));
    else if (alarm && !promoted)
      revoke_router(router, fmt::format("drift: the alarm was raised in slot {}", slot));
  }
  write_atomic(done, "");
}

std::string retrain_metrics(const Json& verdict) {
  const OpenMetrics::Labels whose{{"model", verdict["model"].get<std::string>()}};
  OpenMetrics metrics;
  const auto one = [&](const char* name, const char* help, double value) {
    metrics.gauge(name, help);
    metrics.sample(whose, value);
  };
  metrics.gauge("retort_retrain_decision", "1 for what the last slot decided.");
  for (const Ending& ending : kEndings) {
    OpenMetrics::Labels labels = whose;
    labels.emplace_back("decision", ending.name);
    metrics.sample(labels, verdict["decision"] == Json(ending.name));
  }
  one("retort_retrain_exit_code", "Exit code of the last slot.", verdict["exit"].get<double>());
  one("retort_retrain_decided_timestamp_seconds", "When it was decided, seconds since 1970.",
      verdict["decided_at"].get<double>());
  if (verdict["facts"].is_object()) {
    one("retort_retrain_rows", "Rows to train on.", verdict["facts"]["rows"].get<double>());
    one("retort_retrain_new_rows", "Rows that the champion has not seen.", verdict["facts"]["new_rows"].get<double>());
    one("retort_retrain_champion_age_days", "Age of the champion.", verdict["facts"]["age_days"].get<double>());
    if (verdict["facts"]["drift"].is_boolean())
      one("retort_retrain_drift", "1 when the alarm was raised.", verdict["facts"]["drift"].get<bool>());
  }
  if (verdict.contains("gate") && verdict["gate"].contains("all")) {
    const Json& all = verdict["gate"]["all"];
    one("retort_retrain_gate_difference", "Challenger less champion on the held-out rows.",
        all["difference"].get<double>());
    one("retort_retrain_gate_difference_low", "Its lower confidence bound.", all["low"].get<double>());
    one("retort_retrain_gate_difference_high", "Its upper confidence bound.", all["high"].get<double>());
  }
  if (verdict["champion"].is_object()) {
    OpenMetrics::Labels labels = whose;
    labels.emplace_back("sha256", verdict["champion"]["sha256"].get<std::string>());
    metrics.gauge("retort_retrain_champion_info", "The model that serves.");
    metrics.sample(labels, 1);
  }
  return metrics.text();
}

}  // namespace retort
