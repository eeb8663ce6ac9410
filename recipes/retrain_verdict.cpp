#include "recipes/retrain_verdict.h"

#include <algorithm>

#include "core/files.h"
#include "monitor/open_metrics.h"
#include "monitor/router.h"
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
