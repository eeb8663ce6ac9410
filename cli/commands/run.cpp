// retort run: everything a recipe says.
#include <fmt/core.h>

#include "cli/command.h"
#include "core/signals.h"
#include "recipes/run.h"

namespace retort {
namespace {

// One row a measurement: base, trained, shipped files beside each other.
void print_evaluations(const Json& report) {
  std::map<std::string, std::map<std::string, std::string>> rows;
  std::vector<std::string> kinds, columns;
  for (const Json& entry : report["evaluate"]) {
    const std::string kind = entry["kind"], on = entry["on"];
    if (!rows.contains(kind)) kinds.push_back(kind);
    if (std::find(columns.begin(), columns.end(), on) == columns.end()) columns.push_back(on);
    rows[kind][on] = fmt::format("{:.3f} ± {:.3f}", entry["value"].get<double>(), entry["stderr"].get<double>());
  }
  if (kinds.empty()) return;
  fmt::print("\n{:<18}", "");
  for (const std::string& column : columns) fmt::print("{:>24}", column);
  for (const std::string& kind : kinds) {
    fmt::print("\n{:<18}", kind);
    for (const std::string& column : columns) fmt::print("{:>24}", rows[kind][column]);
  }
  fmt::print("\n");
}

void print_outcome(const RunOutcome& outcome) {
  const Json& report = outcome.report;
  const Json& train = report["train"];
  fmt::print(
      "\ntrained {} steps on {} tokens in {:.0f} s with validation ({:.0f} tokens/s without), loss {:.3f} → {:.3f}\n",
      train["steps"].get<int64_t>(), train["tokens"].get<int64_t>(), report["seconds"]["train"].get<double>(),
      train["tokens_per_second"].get<double>(), train["loss_first"].get<double>(), train["loss_last"].get<double>());
  print_evaluations(report);
  for (const Json& file : report["export"]) {
    fmt::print("\n{}  {:.1f} MB", file["path"].get<std::string>(), file["bytes"].get<double>() / 1e6);
    if (!file.contains("gate")) continue;
    const Json& gate = file["gate"];
    fmt::print("  {}: mean KL {:.4f}, same top-1 {:.1f} %", gate["passed"].get<bool>() ? "passed the gate" : "REFUSED",
               gate["kl_mean"].get<double>(), 100 * gate["top1"].get<double>());
  }
  fmt::print("\n\nreport: {}\n", (outcome.folder / "report.html").string());
}

std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
    bool resume = false, quiet = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "the recipe, a YAML file (docs/recipe.md)")->required();
  app.add_option("overrides", options->overrides,
                 "key=value pairs that replace the recipe's, for instance train.max_steps=4");
  app.add_flag("--resume", options->resume, "go on from the last checkpoint of this recipe's newest unfinished run");
  app.add_flag("--quiet", options->quiet, "no progress bars");
  return [options] {
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    catch_stop_signals();
    const RunOutcome outcome = run_recipe(recipe, options->resume, options->quiet ? ProgressSink() : stream_progress());
    print_outcome(outcome);
    return static_cast<int>(outcome.refused ? Exit::gate_refused : Exit::done);
  };
}

}  // namespace

extern const Command command_run{"run", "Fetch, train, export, prove and report, as a recipe says.",
                                 "  retort run configs/quickstart.yaml\n"
                                 "  retort run my.yaml train.learning_rate=1e-4 adapter.r=32\n"
                                 "  retort run my.yaml --resume\n",
                                 setup};

}  // namespace retort
