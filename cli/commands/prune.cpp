// retort prune: a smaller student out of a teacher, as an ordinary model folder.
#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "core/signals.h"
#include "recipes/prune.h"

namespace retort {
namespace {

void print_steps(const Json& steps) {
  fmt::print("\nKL in nats a token when one layer is taken away:\n");
  for (const Json& tried : steps[0]["tried"])
    fmt::print("  layer {:>3}  {:.4f}\n", tried["layer"].get<int64_t>(), tried["kl"].get<double>());
  fmt::print("taken away, one after the other:\n");
  for (const Json& step : steps)
    fmt::print("  layer {:>3}  {:.4f}\n", step["removed"].get<int64_t>(), step["kl"].get<double>());
}

void print_report(const Json& report) {
  if (report.contains("layers")) {
    if (report["layers"].contains("steps")) print_steps(report["layers"]["steps"]);
    fmt::print("\nlayers       {} of {}: {}\n", report["layers"]["kept"].size(),
               report["layers"]["before"].get<int64_t>(), report["layers"]["kept"].dump());
  }
  if (report.contains("mlp"))
    fmt::print("mlp          {} of {} channels\n", report["mlp"]["kept"].get<int64_t>(),
               report["mlp"]["before"].get<int64_t>());
  if (report.contains("vocabulary"))
    fmt::print("vocabulary   {} of {} tokens, {} of them used\n", report["vocabulary"]["kept"].get<int64_t>(),
               report["vocabulary"]["before"].get<int64_t>(), report["vocabulary"]["used"].get<int64_t>());
  const Json &before = report["validation"]["before"], &after = report["validation"]["after"];
  fmt::print("\n{:<16}{:>14}{:>14}\n", "", "before", "after");
  fmt::print("{:<16}{:>14}{:>14}\n", "parameters", report["parameters"]["before"].get<int64_t>(),
             report["parameters"]["after"].get<int64_t>());
  for (const char* figure : {"perplexity", "bits_per_byte"})
    fmt::print("{:<16}{:>14.3f}{:>14.3f}\n", figure, before[figure].get<double>(), after[figure].get<double>());
  fmt::print("{:<16}{:>14}{:>14.3f}\n{:<16}{:>14}{:>14.3f}\n", "KL", "", after["kl"].get<double>(), "same top-1", "",
             after["top1"].get<double>());
  fmt::print("\n{}: {:.1f} MB of {}, {:.0f} s\n", report["path"].get<std::string>(),
             report["bytes"].get<double>() / 1e6, report["type"].get<std::string>(), report["seconds"].get<double>());
}

std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
    bool quiet = false, json = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "the recipe, a YAML file (docs/prune.md)")->required();
  app.add_option("overrides", options->overrides,
                 "key=value pairs that replace the recipe's, for instance prune.layers.count=20");
  app.add_flag("--quiet", options->quiet, "no progress bars");
  app.add_flag("--json", options->json, "print what prune.json holds");
  return [options] {
    const PruneRecipe recipe = load_prune_recipe(options->recipe, options->overrides);
    catch_stop_signals();
    const Json report = prune_model(recipe, options->quiet ? ProgressSink() : stream_progress());
    if (options->json)
      fmt::print("{}\n", report.dump(2));
    else
      print_report(report);
    return 0;
  };
}

}  // namespace

extern const Command command_prune{
    .name = "prune",
    .summary = "Make a smaller student of a teacher: fewer layers, a narrower MLP, a smaller vocabulary.",
    .examples =
        "  retort prune configs/distill/prune_smollm2.yaml\n"
        "  retort prune configs/distill/prune_smollm2.yaml prune.layers.count=20 output=students/smollm2-20",
    .setup = setup,
};

}  // namespace retort
