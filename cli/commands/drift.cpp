// retort drift: whether the traffic still is what the model was made for.
#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/signals.h"
#include "recipes/drift.h"

namespace retort {
namespace {

struct Arguments {
  std::string recipe;
  std::vector<std::string> overrides;
  DriftRequest request;
  bool quiet = false, json = false;
};

void add_common(CLI::App& app, Arguments& arguments) {
  app.add_option("recipe", arguments.recipe, "the recipe with a drift block (docs/drift.md)")->required();
  app.add_option("overrides", arguments.overrides, "key=value pairs that replace the recipe's");
  app.add_flag("--quiet", arguments.quiet, "no progress bars");
  app.add_flag("--json", arguments.json, "print JSON");
}

void print_profile(const Json& result) {
  fmt::print("{}: {} bytes\nsha256 {}\n", result["path"].get<std::string>(), result["bytes"].get<int64_t>(),
             result["sha256"].get<std::string>());
  if (!result.contains("signals")) {
    fmt::print("null distributions of {} in blocks of {} rows, {} resamples, in {:.0f} s\n",
               fmt::join(result["nulls"].get<std::vector<std::string>>(), ", "), result["block"].get<int64_t>(),
               result["resamples"].get<int64_t>(), result["seconds"].get<double>());
    for (const Json& note : result["skipped"]) fmt::print("{}\n", note.get<std::string>());
    return;
  }
  fmt::print("\n{:<20} {:>8} {:>12}\n", "signal", "rows", "mean");
  for (const auto& [name, signal] : result["signals"].items())
    fmt::print("{:<20} {:>8} {:>12}\n", name, signal["rows"].get<int64_t>(),
               signal.contains("mean") ? fmt::format("{:.4f}", signal["mean"].get<double>()) : "");
}

void print_check(const Json& report) {
  const Json& drift = report["drift"];
  fmt::print("{:<12} {:>6} {:>10} {}\n", "slot", "rows", "level", "signals beyond both keys");
  for (const Json& slot : drift["slots"]) {
    std::vector<std::string> beyond;
    for (const Json& signal : slot["signals"])
      if (signal["alarm"] == Json(true))
        beyond.push_back(signal["signal"].get<std::string>() + " (" + signal["detector"].get<std::string>() + ")");
    fmt::print("{:<12} {:>6} {:>10.3g} {}{}\n", slot["slot"].get<std::string>(), slot["rows"].get<int64_t>(),
               slot["level"].get<double>(), fmt::join(beyond, ", "), slot["alarm"] == Json(true) ? "  ALARM" : "");
  }
  for (const Json& note : drift["notes"]) fmt::print("{}\n", note.get<std::string>());
  if (drift.contains("canaries"))
    fmt::print("canaries: mean KL {:.3g} nats, limit {:.3g}\n", drift["canaries"]["kl_mean"].get<double>(),
               drift["canaries"]["limit"].get<double>());
  const Json& decision = drift["decision"];
  if (decision["alarm"] != Json(true) && decision["compared"] != Json(true)) {
    fmt::print("nothing was compared: this says nothing about drift\n");
    return;
  }
  fmt::print("{} (rule: {})\n", decision["alarm"] == Json(true) ? "DRIFT: retraining is due" : "no drift",
             decision["rule"].get<std::string>());
}

std::function<int()> setup(CLI::App& app) {
  app.require_subcommand(1);
  auto profile = std::make_shared<Arguments>(), calibrated = std::make_shared<Arguments>(),
       check = std::make_shared<Arguments>();
  CLI::App* make = app.add_subcommand("profile", "Describe the baseline without its text, beside the model.");
  add_common(*make, *profile);
  CLI::App* join =
      app.add_subcommand("merge", "Join profiles of one model: the profile of all their rows, to calibrate.");
  auto profiles = std::make_shared<std::vector<std::filesystem::path>>();
  auto joined = std::make_shared<Arguments>();
  join->add_option("profiles", *profiles, "what `retort drift profile` wrote")->required()->expected(2, 1000);
  join->add_option("--out", joined->request.out, "the profile of all")->required();
  join->add_flag("--json", joined->json, "print JSON");
  CLI::App* nulls =
      app.add_subcommand("calibrate", "Measure what chance does to each signal, by resampling the baseline.");
  add_common(*nulls, *calibrated);
  CLI::App* look =
      app.add_subcommand("check",
                         "Compare fresh traffic with the baseline: exit 0, 10 on drift, 13 when too few rows "
                         "(or none that a detector takes) could be compared.");
  add_common(*look, *check);
  DriftRequest& request = check->request;
  look->add_option("--data", request.data, "a serving log, JSON Lines; default: drift.traffic");
  look->add_option("--slot", request.slot,
                   "all rows are of this day, month or year; default: by their times, else today");
  look->add_option("--state", request.state, "file that remembers earlier slots; default: drift.state");
  look->add_option("--metrics", request.metrics, "write OpenMetrics text, for node_exporter's textfile folder");
  look->add_option("--out", request.out, "folder of report.json and report.html; default: OUTPUT_DIR/NAME/drift");
  look->add_option("--deployed", request.deployed, "the file that serves, for the canaries; default: the champion");
  return [=, &app] {
    const auto say = [](const Json& result, bool json) {
      if (json)
        fmt::print("{}\n", result.dump(2));
      else
        print_profile(result);
      return 0;
    };
    if (app.got_subcommand("merge")) return say(merge_profiles(*profiles, joined->request.out), joined->json);
    const bool building = app.got_subcommand("profile"), calibrating = app.got_subcommand("calibrate");
    const Arguments& arguments = building ? *profile : calibrating ? *calibrated : *check;
    const Recipe recipe = load_recipe(arguments.recipe, arguments.overrides);
    catch_stop_signals();
    const ProgressSink progress = arguments.quiet ? ProgressSink() : stream_progress();
    if (building) return say(build_profile(recipe, progress), arguments.json);
    if (calibrating) return say(calibrate_profile(recipe, progress), arguments.json);
    const Json report = check_drift(recipe, arguments.request, progress);
    if (arguments.json)
      fmt::print("{}\n", report.dump(2));
    else
      print_check(report);
    return drift_exit(report);
  };
}

}  // namespace

extern const Command command_drift{
    "drift", "Profile a domain, and check whether fresh traffic still belongs to it.",
    "  retort drift profile configs/drift/foldoc.yaml\n"
    "  retort drift calibrate configs/drift/foldoc.yaml\n"
    "  retort drift check configs/drift/foldoc.yaml --data traffic.jsonl --state drift.state \\\n"
    "    --metrics /var/lib/node_exporter/retort.prom\n",
    setup};

}  // namespace retort
