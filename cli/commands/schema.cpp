// retort schema: the recipe's JSON Schema, for editors, or its reference page.
#include <fmt/core.h>

#include "cli/command.h"
#include "recipes/recipe.h"

namespace retort {

static std::function<int()> setup(CLI::App& app) {
  auto markdown = std::make_shared<bool>(false);
  app.add_flag("--markdown", *markdown, "the reference page docs/recipe.md instead");
  return [markdown] {
    if (*markdown)
      fmt::print("{}", recipe_reference());
    else
      fmt::print("{}\n", schema_of(static_cast<Recipe*>(nullptr)).json_schema().dump(2));
    return 0;
  };
}

extern const Command command_schema{"schema", "Print the recipe's JSON Schema.",
                                    "  retort schema > retort.schema.json      # for your editor\n"
                                    "  retort schema --markdown > docs/recipe.md\n",
                                    setup};

}  // namespace retort
