// retort eval: what evaluators and tasks find of a model, beside another one if wanted, as a table or JSON.
#include <fmt/core.h>

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
#include "recipes/stages.h"

namespace retort {
namespace {

struct Arguments {
  std::string model, against, adapter, recipe, data, data_kind = "jsonl";
  std::vector<std::string> kinds, tasks, overrides;
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
  Resolve resolve = pulled;
};

/// "perplexity", or a kind with keys of its own: "{kind: kl, reference: base.gguf}".
Evaluator evaluator_of(const std::string& text) {
  if (!text.starts_with("{")) return evaluator_from({{"kind", text}});
  Evaluator evaluator;
  from_yaml(Yaml::parse(text, "--kind"), evaluator);
  return evaluator;
}

Plan plan_of(const Arguments& arguments) {
  Plan plan;
  if (!arguments.recipe.empty()) {
    const Recipe recipe = load_recipe(arguments.recipe, arguments.overrides);
    plan.evaluators = recipe.evaluate;
    plan.files = recipe.data.validation;
    plan.resolve = [recipe](const std::string& path) { return pull(source_of(recipe, path)); };
    for (DatasetOptions& file : plan.files) resolve_paths(file, plan.resolve);
    plan.encode = encode_options(recipe);
    plan.chat_template = chat_template_of(recipe);
  } else if (!arguments.data.empty()) {
    plan.files.push_back({.kind = arguments.data_kind, .path = arguments.data});
    plan.encode.max_length = arguments.max_length;
  }
  if (!arguments.kinds.empty() || !arguments.tasks.empty()) plan.evaluators.clear();
  for (const std::string& kind : arguments.kinds) plan.evaluators.push_back(evaluator_of(kind));
  for (const std::string& task : arguments.tasks)
    plan.evaluators.push_back(evaluator_from({{"kind", "task"}, {"path", task}}));
  if (plan.evaluators.empty()) plan.evaluators.push_back(evaluator_from({{"kind", "perplexity"}}));
  for (Evaluator& evaluator : plan.evaluators) {
    if (arguments.limit == 0) break;
    Json keys = json_of(evaluator);
    keys["limit"] = arguments.limit;
    evaluator = evaluator_from(keys);
  }
  return plan;
}

std::vector<EvaluationRow> rows_of(const Plan& plan, const Tokenizer& tokenizer) {
  std::vector<EvaluationRow> rows;
  if (plan.files.empty()) return rows;
  const ChatTemplate chat_template(tokenizer, plan.chat_template);
  size_t wanted = 0;
  for (const Evaluator& evaluator : plan.evaluators) {
    const std::optional<int64_t>& limit = evaluator.options->limit;
    wanted = std::max(wanted, limit ? static_cast<size_t>(*limit) : SIZE_MAX);
  }
  Ledger ledger;
  const Stream<Chat> chats = chats_of(plan.files);
  for (Chat chat; rows.size() < wanted && chats(chat);) {
    if (auto row = evaluation_row(tokenizer, chat_template, chat, plan.encode, ledger)) rows.push_back(std::move(*row));
  }
  return rows;
}

/// What was found of one model.
struct Results {
  std::filesystem::path path;
  std::vector<std::string> places;  ///< of the rows
  std::vector<Evaluation> evaluations;
  std::optional<Speed> speed;
};

Results measure(const Arguments& arguments, const Plan& plan, const std::string& model, const std::string& adapter) {
  Results results{.path = pull({.uri = model, .sha256 = "", .name = ""}), .places = {}, .evaluations = {}, .speed = {}};
  const auto tokenizer = Tokenizer::open(results.path);
  const std::vector<EvaluationRow> rows = rows_of(plan, *tokenizer);
  for (const EvaluationRow& row : rows) results.places.push_back(row.place);
  const ServableFile file(results.path);
  const auto served = serve(results.path, file, adapter, {.threads = arguments.threads, .exact = true});
  results.evaluations =
      evaluate(plan.evaluators, rows, *served, *tokenizer, results.path.filename().string(), {}, plan.resolve);
  if (arguments.speed) results.speed = measure_speed(file.path(), arguments.threads);
  return results;
}

Json json_of(const Results& results) {
  Json json{{"model", results.path.string()}, {"evaluate", Json::array()}};
  for (const Evaluation& evaluation : results.evaluations) json["evaluate"].push_back(evaluation.to_json());
  if (const auto& speed = results.speed)
    json["speed"] = {{"prompt_tokens_per_second", speed->prompt_tokens_per_second},
                     {"generation_tokens_per_second", speed->generation_tokens_per_second},
                     {"first_token_seconds", speed->first_token_seconds},
                     {"memory_bytes", speed->memory_bytes}};
  return json;
}

std::string shown(double value, double error) {
  return error > 0 ? fmt::format("{:.4g} ± {:.2g}", value, error) : fmt::format("{:.4g}", value);
}

void print(const Results& results, const Results* against) {
  fmt::print("{:<28} {:<14} {:>6}  {:>22}", "evaluator", "data", "n", "value");
  if (against) fmt::print("  {:>22}  {:>22}", "against", "difference");
  fmt::print("\n");
  for (size_t i = 0; i < results.evaluations.size(); ++i) {
    const Evaluation& found = results.evaluations[i];
    fmt::print("{:<28} {:<14} {:>6}  {:>22}", found.name, found.data, found.n,
               shown(found.value, found.standard_error));
    if (against) {
      const Evaluation& other = against->evaluations[i];
      const Difference apart = difference(found, other);
      fmt::print("  {:>22}  {:>22}", shown(other.value, other.standard_error),
                 shown(apart.value, apart.standard_error));
    }
    fmt::print("  {}\n", found.unit == "share" ? "" : found.unit);
    for (const auto& [name, figure] : found.details.items()) {
      if (!figure.is_number() || name.ends_with("_stderr")) continue;
      const double error = found.details.value(name + "_stderr", 0.0);
      fmt::print("  {:<49}  {:>22}\n", name, shown(figure.get<double>(), error));
    }
  }
  if (const auto& speed = results.speed)
    fmt::print(
        "speed: prompt {:.0f} tokens/s, generation {:.0f} tokens/s, first token after {:.3f} s, memory {:.0f} MB\n",
        speed->prompt_tokens_per_second, speed->generation_tokens_per_second, speed->first_token_seconds,
        static_cast<double>(speed->memory_bytes) / 1e6);
}

/// A difference is paired: both models must have seen the same rows.
void require_same_rows(const Results& a, const Results& b) {
  if (a.places == b.places) return;
  const auto [first, second] = std::mismatch(a.places.begin(), a.places.end(), b.places.begin(), b.places.end());
  fail(Exit::bad_input, "{} and {} do not see the same rows: from {} on one of them drops a row as too long; raise {}",
       a.path.string(), b.path.string(), first != a.places.end() ? *first : *second, "--max-length or data.max_length");
}

int evaluate_command(const Arguments& arguments) {
  const bool only_tasks = !arguments.tasks.empty() && arguments.kinds.empty();
  if (arguments.recipe.empty() == arguments.data.empty() && !(only_tasks && arguments.data.empty()))
    fail(Exit::usage,
         "give the rows to measure on: --recipe RECIPE (its data.validation), --data FILE, or --task FILE");
  if (arguments.recipe.empty() && !arguments.overrides.empty())
    fail(Exit::usage, "{}: key=value changes a recipe, and there is no --recipe", arguments.overrides[0]);
  const Plan plan = plan_of(arguments);
  const Results results = measure(arguments, plan, arguments.model, arguments.adapter);
  std::optional<Results> against;
  if (!arguments.against.empty()) {
    against = measure(arguments, plan, arguments.against, "");
    require_same_rows(results, *against);
  }
  if (!arguments.json) {
    print(results, against ? &*against : nullptr);
    return 0;
  }
  Json json = json_of(results);
  if (against) {
    json["against"] = json_of(*against);
    json["differences"] = Json::array();
    for (size_t i = 0; i < results.evaluations.size(); ++i) {
      const Difference apart = difference(results.evaluations[i], against->evaluations[i]);
      json["differences"].push_back({{"name", results.evaluations[i].name},
                                     {"data", results.evaluations[i].data},
                                     {"value", apart.value},
                                     {"stderr", apart.standard_error}});
    }
  }
  fmt::print("{}\n", json.dump(2));
  return 0;
}

std::string names_of_evaluators() {
  std::string names;
  for (const auto& [name, kind] : evaluator_kinds()) names += (names.empty() ? "" : ",") + name;
  return names;
}

std::function<int()> setup(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("model,--model", arguments->model, "GGUF file or Hugging Face folder: a path or a source")->required();
  app.add_option("--against", arguments->against, "another one: both on the same rows, with paired differences");
  app.add_option("--adapter", arguments->adapter, "of the model: PEFT folder or GGUF adapter, a path or a source");
  app.add_option("--recipe", arguments->recipe,
                 "measure on this recipe's data.validation, with its evaluators and chat template");
  app.add_option("--data", arguments->data, "a file of rows instead: chats, prompt and completion, or text");
  app.add_option("--data-kind", arguments->data_kind, "its format: jsonl, csv, text or dictd")->capture_default_str();
  app.add_option("--task", arguments->tasks, "a task in the form of lm-evaluation-harness, a YAML file");
  app.add_option("--kind", arguments->kinds,
                 "an evaluator, or with keys of its own: '{kind: kl, reference: base.gguf}'; default: the recipe's, "
                 "else perplexity")
      ->type_name("TEXT:{" + names_of_evaluators() + "}");
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
    "eval", "Measure a model on held-out rows or on a task, beside another one if wanted.",
    "  retort eval runs/foldoc-categories/latest/export/foldoc-categories-Q4_K_M.gguf \\\n"
    "    --recipe configs/quickstart.yaml\n"
    "  retort eval new.gguf --against old.gguf --task my-task.yaml\n"
    "  retort eval --model base.gguf --adapter runs/foldoc-categories/latest/adapter --recipe configs/quickstart.yaml\n"
    "  retort eval base.gguf --data rows.jsonl --kind perplexity --kind '{kind: kl, reference: old.gguf}' --json\n",
    setup};

}  // namespace retort
