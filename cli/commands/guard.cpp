// retort guard: a recipe's guards on its training rows, without a model.
#include <fmt/core.h>

#include "cli/command.h"
#include "recipes/guards.h"

namespace retort {

static std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe, audit, clean;
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "the recipe, a YAML file (docs/recipe.md, docs/guards.md)")->required();
  app.add_option("overrides", options->overrides,
                 "key=value pairs that replace the recipe's, for instance data.guards.pii.action=report");
  app.add_option("--audit", options->audit, "where every finding is written; default: <output_dir>/<name>/audit.jsonl");
  app.add_option("--clean", options->clean, "write the rows that pass to this file, as JSON Lines");
  app.add_flag("--json", options->json, "print JSON");
  return [options] {
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    const std::filesystem::path audit = options->audit.empty() ? recipe.output_dir / recipe.name / "audit.jsonl"
                                                               : std::filesystem::path(options->audit);
    const GuardTotals totals = run_guards(recipe, audit, options->clean, stream_progress());
    Json guards = guards_json(totals);
    guards["audit"] = audit.string();
    fmt::print("{}", options->json ? guards.dump(2) + "\n"
                                   : describe_guards(guards) + "audit        " + audit.string() + "\n");
    return static_cast<int>(refusal_of(totals));
  };
}

extern const Command command_guard{
    "guard", "Run a recipe's guards on its training rows: duplicates, contamination, personal data, secrets, quality.",
    "  retort guard my.yaml\n"
    "  retort guard my.yaml --clean clean.jsonl data.guards.pii.action=redact\n"
    "Exit code 20: a guard with action: fail found something; 21: contamination did.\n",
    setup};

}  // namespace retort
