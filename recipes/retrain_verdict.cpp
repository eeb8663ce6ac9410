#include "recipes/retrain_verdict.h"

#include <algorithm>

#include "core/files.h"
#include "monitor/open_metrics.h"
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

/// Attempts of a model that came to a verdict; several models may share a folder.
std::vector<fs::path> decided_below(const fs::path& folder, const std::string& model) {
  std::vector<fs::path> decided;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const fs::path file = entry.path() / "verdict.json";
    if (fs::exists(file) && json_get<std::string>(read_json(file), "model", file.string()) == model)
      decided.push_back(entry.path());
  }
  std::sort(decided.begin(), decided.end());
  return decided;
}

}  // namespace

const char* name_of(Decision decision) { return ending(decision).name; }
int exit_of(Decision decision) { return ending(decision).exit; }

void write_verdict(const fs::path& folder, const Json& report) {
  write_json(folder / "report.json", report);
  write_atomic(folder / "report.html", render_report(report));
  write_json(folder / "verdict.json", report["retrain"]);
}

std::vector<std::string> tell_verdicts(const NotifyOptions& options, const fs::path& folder, const std::string& model) {
  std::vector<std::string> failed;
  for (const fs::path& attempt : decided_below(folder, model)) {
    if (fs::exists(attempt / "told")) continue;
    const fs::path file = attempt / "verdict.json";
    const bool silent = read_json(file)["exit"] == 0 && !options.when_nothing_is_due;
    const std::vector<std::string> problems = silent ? std::vector<std::string>() : notify(options, file);
    if (problems.empty()) write_atomic(attempt / "told", "");
    failed.insert(failed.end(), problems.begin(), problems.end());
  }
  return failed;
}

void tidy_attempts(const fs::path& folder, const std::string& model, int64_t keep) {
  std::vector<std::pair<fs::file_time_type, fs::path>> runs;
  std::error_code none;
  for (const fs::path& attempt : decided_below(folder, model)) {
    for (fs::recursive_directory_iterator at(attempt, none), end; !none && at != end; at.increment(none)) {
      if (at.depth() > 1) at.disable_recursion_pending();
      if (at.depth() == 2 && at->path().filename() == "report.json")
        runs.emplace_back(fs::last_write_time(at->path()), at->path().parent_path());
    }
  }
  std::sort(runs.begin(), runs.end(), std::greater<>());
  for (size_t i = 0; i < runs.size(); ++i) {
    fs::remove_all(runs[i].second / "checkpoints", none);
    if (i > 0 && std::cmp_greater(i, keep)) fs::remove_all(runs[i].second / "export", none);
  }
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
