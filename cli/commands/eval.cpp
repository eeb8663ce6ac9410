// retort eval: a model's accuracy and perplexity on a recipe's held-out rows or on a file, as a table or JSON.
#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/files.h"
#include "core/progress.h"
#include "core/sources.h"
#include "data/encode.h"
#include "monitor/evaluate.h"
#include "recipes/prepare.h"
#include "recipes/recipe.h"
#include "recipes/serve.h"

namespace retort {
namespace {

struct Arguments {
  std::string model, adapter, recipe, data, data_kind = "jsonl";
  std::vector<std::string> kinds, overrides;
  int64_t limit = 0, max_length = 2048;
  int threads = 0;
  bool json = false, speed = false;
};

/// The evaluators and the rows to run them on.
struct Plan {
  std::vector<Evaluator> evaluators;
  std::vector<DatasetOptions> files;
  EncodeOptions encode;
  std::string chat_template;  ///< Jinja; empty: the model's own
};

Plan plan_of(const Arguments& arguments) {
  Plan plan;
  if (!arguments.recipe.empty()) {
    const Recipe recipe = load_recipe(arguments.recipe, arguments.overrides);
    plan.evaluators = recipe.evaluate;
    plan.files = recipe.data.validation;
    for (DatasetOptions& file : plan.files) {
      resolve_paths(file, [&](const std::string& path) { return pull(source_of(recipe, path)); });
    }
    plan.encode = encode_options(recipe);
    plan.chat_template = chat_template_of(recipe);
  } else {
    plan.files.push_back({.kind = arguments.data_kind, .path = arguments.data});
    plan.encode.max_length = arguments.max_length;
  }
  if (!arguments.kinds.empty() || plan.evaluators.empty()) {
    plan.evaluators.clear();
    for (const std::string& kind : arguments.kinds.empty() ? std::vector<std::string>{"perplexity"} : arguments.kinds) {
      plan.evaluators.push_back(evaluator_from({{"kind", kind}}));
    }
  }
  for (Evaluator& evaluator : plan.evaluators) {
    if (arguments.limit == 0) break;
    Json keys = json_of(evaluator);
    keys["limit"] = arguments.limit;
    evaluator = evaluator_from(keys);
  }
  return plan;
}

int evaluate_command(const Arguments& arguments) {
  if (arguments.recipe.empty() == arguments.data.empty())
    fail(Exit::usage, "give the rows to measure on: either --recipe RECIPE (its data.validation) or --data FILE");
  if (arguments.recipe.empty() && !arguments.overrides.empty())
    fail(Exit::usage, "{}: key=value changes a recipe, and there is no --recipe", arguments.overrides[0]);
  const Plan plan = plan_of(arguments);
  const auto path = pull({.uri = arguments.model, .sha256 = "", .name = ""});
  const auto tokenizer = Tokenizer::open(path);
  const ChatTemplate chat_template(*tokenizer, plan.chat_template);
  size_t wanted = 0;
  for (const Evaluator& evaluator : plan.evaluators) {
    const std::optional<int64_t>& limit = evaluator.options->limit;
    wanted = std::max(wanted, limit ? static_cast<size_t>(*limit) : SIZE_MAX);
  }
  std::vector<EvaluationRow> rows;
  Ledger ledger;
  const Stream<Chat> chats = chats_of(plan.files);
  for (Chat chat; rows.size() < wanted && chats(chat);) {
    if (auto row = evaluation_row(*tokenizer, chat_template, chat, plan.encode, ledger))
      rows.push_back(std::move(*row));
  }
  const ServableFile file(path);
  const auto model = serve(path, file, arguments.adapter, {.threads = arguments.threads, .exact = true});
  const std::vector<Evaluation> results = evaluate(plan.evaluators, rows, *model, *tokenizer, path.filename().string());
  std::optional<Speed> speed;
  if (arguments.speed) speed = measure_speed(file.path(), arguments.threads);
  if (arguments.json) {
    Json json{{"model", path.string()}, {"evaluate", Json::array()}};
    for (const Evaluation& result : results) json["evaluate"].push_back(result.to_json());
    if (speed) {
      json["speed"] = {{"prompt_tokens_per_second", speed->prompt_tokens_per_second},
                       {"generation_tokens_per_second", speed->generation_tokens_per_second},
                       {"first_token_seconds", speed->first_token_seconds},
                       {"memory_bytes", speed->memory_bytes}};
    }
    std::printf("%s\n", json.dump(2).c_str());
    return 0;
  }
  std::printf("%-18s %12s %12s %8s %9s\n", "evaluator", "value", "stderr", "rows", "seconds");
  for (const Evaluation& result : results) {
    std::printf("%-18s %12.4f %12.4f %8ld %9.1f\n", result.kind.c_str(), result.value, result.standard_error,
                static_cast<long>(result.n), result.seconds);
    for (const auto& [name, figure] : result.details.items()) {
      if (figure.is_number()) std::printf("  %-16s %12.4f\n", name.c_str(), figure.get<double>());
    }
  }
  if (speed) {
    std::printf("speed: prompt %.0f tokens/s, generation %.0f tokens/s, first token after %.3f s, memory %.0f MB\n",
                speed->prompt_tokens_per_second, speed->generation_tokens_per_second, speed->first_token_seconds,
                static_cast<double>(speed->memory_bytes) / 1e6);
  }
  return 0;
}

std::vector<std::string> names_of_evaluators() {
  std::vector<std::string> names;
  for (const auto& [name, kind] : evaluator_kinds()) names.push_back(name);
  return names;
}

std::function<int()> setup(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--model", arguments->model, "GGUF file or Hugging Face folder: a path or a source")->required();
  app.add_option("--adapter", arguments->adapter, "PEFT folder or GGUF adapter: a path or a source");
  app.add_option("--recipe", arguments->recipe,
                 "measure on this recipe's data.validation, with its evaluators and chat template");
  app.add_option("--data", arguments->data, "a file of rows instead: chats, prompt and completion, or text");
  app.add_option("--data-kind", arguments->data_kind, "its format: jsonl, csv, text or dictd")->capture_default_str();
  app.add_option("--kind", arguments->kinds,
                 "choice_accuracy, exact_match or perplexity; default: the recipe's, else perplexity")
      ->check(CLI::IsMember(names_of_evaluators()));
  app.add_option("--limit", arguments->limit, "only the first rows")->check(CLI::PositiveNumber);
  app.add_option("--max-length", arguments->max_length, "with --data: longest row in tokens")->capture_default_str();
  app.add_option("--threads", arguments->threads, "0: the cores that may be used")->check(CLI::Range(0, 4096));
  app.add_flag("--speed", arguments->speed, "also measure tokens a second and memory");
  app.add_flag("--json", arguments->json, "print JSON");
  app.add_option("overrides", arguments->overrides, "key=value pairs that replace the recipe's");
  return [arguments] { return evaluate_command(*arguments); };
}

}  // namespace

extern const Command command_eval;
const Command command_eval = {
    "eval", "Measure a model on held-out rows.",
    "  retort eval --model runs/foldoc-categories/latest/export/foldoc-categories-Q4_K_M.gguf \\\n"
    "    --recipe configs/quickstart.yaml\n"
    "  retort eval --model base.gguf --adapter runs/foldoc-categories/latest/adapter --recipe configs/quickstart.yaml\n"
    "  retort eval --model base.gguf --data rows.jsonl --kind perplexity --limit 100 --json\n",
    setup};

}  // namespace retort
