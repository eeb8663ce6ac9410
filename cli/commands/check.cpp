// retort check: the plan of a run, and every error that it would meet.
#include <fmt/core.h>

#include "cli/command.h"
#include "core/signals.h"
#include "recipes/check.h"

namespace retort {

static std::function<int()> setup(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "the recipe, a YAML file (docs/recipe.md)")->required();
  app.add_option("overrides", options->overrides,
                 "key=value pairs that replace the recipe's, for instance train.max_steps=4");
  app.add_flag("--json", options->json, "print JSON");
  return [options] {
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    catch_stop_signals();
    const Json check = check_recipe(recipe, stream_progress());
    fmt::print("{}", options->json ? check.dump(2) + "\n" : describe_check(check));
    return 0;
  };
}

extern const Command command_check{"check",
                                   "Print what a run would do, and every error it would meet, without training.",
                                   "  retort check configs/quickstart.yaml\n"
                                   "  retort check my.yaml train.micro_batch_size=16\n",
                                   setup};

}  // namespace retort
