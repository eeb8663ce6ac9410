// retort retrain: what a scheduler runs.
#include <fmt/format.h>

#include <charconv>
#include <chrono>

#include "cli/command.h"
#include "core/error.h"
#include "core/signals.h"
#include "monitor/traffic.h"
#include "recipes/retrain.h"

namespace retort {
namespace {

/// "2026-11-24" or seconds since 1970.
std::optional<int64_t> moment(const std::string& text) {
  if (text.empty()) return std::nullopt;
  int64_t seconds = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seconds);
  if (error == std::errc() && rest == end && seconds >= 0) return seconds;
  const auto day = text.size() == 10 ? day_of(text) : std::nullopt;
  if (!day) fail(Exit::usage, "--now {}: allowed: a day like 2026-11-24, or seconds since 1970", text);
  return std::chrono::duration_cast<std::chrono::seconds>(day->time_since_epoch()).count();
}

void print(const RetrainOutcome& outcome) {
  const Json& verdict = outcome.verdict;
  fmt::print("{} {}: {}{}\n", verdict["model"].get<std::string>(), verdict["slot"].get<std::string>(),
             verdict["decision"].get<std::string>(), verdict.contains("repeated") ? " (decided before)" : "");
  for (const Json& reason : verdict["reasons"]) fmt::print("  {}\n", reason.get<std::string>());
  if (verdict["champion"].is_object()) fmt::print("champion: {}\n", verdict["champion"]["sha256"].get<std::string>());
  if (!outcome.folder.empty()) fmt::print("report: {}\n", (outcome.folder / "report.html").string());
}

std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe, now;
    std::vector<std::string> overrides;
    RetrainRequest request;
    bool quiet = false, json = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "the recipe with a retrain block (docs/operations.md)")->required();
  app.add_option("overrides", options->overrides, "key=value pairs that replace the recipe's");
  app.add_option("--slot", options->request.slot, "decide for this day, week, month or year; default: that of --now");
  app.add_option("--now", options->now, "a day or seconds since 1970; default: this machine's clock");
  app.add_option("--data", options->request.traffic, "fresh traffic, a serving log; default: drift.traffic");
  app.add_flag("--force", options->request.force, "train whatever retrain.when says");
  app.add_flag("--check", options->request.check, "train and write nothing: exit 10 when the slot has something to do");
  app.add_flag("--quiet", options->quiet, "no progress bars");
  app.add_flag("--json", options->json, "print the verdict as JSON");
  return [options] {
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    options->request.now = moment(options->now);
    catch_stop_signals();
    const RetrainOutcome outcome =
        retrain(recipe, options->request, options->quiet ? ProgressSink() : stream_progress());
    if (options->json)
      fmt::print("{}\n", outcome.verdict.dump(2));
    else
      print(outcome);
    return outcome.verdict["exit"].get<int>();
  };
}

}  // namespace

extern const Command command_retrain{
    "retrain", "One slot of a schedule: check drift, retrain when it is due, judge, promote or not, tell.",
    "  retort retrain configs/retrain/foldoc.yaml\n"
    "  retort retrain my.yaml --data traffic.jsonl --check\n"
    "Exit code 0: nothing is due; 10: due, or taken back; 11: promoted; 12: rejected; 13: inconclusive; 20, 21: the\n"
    "guards refused the rows; 22: the export's gate refused; 75: another process retrains this model, or stopped.\n",
    setup};

}  // namespace retort
