#include "recipes/retrain_judge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "models/served.h"
#include "recipes/prepare.h"
#include "recipes/stages.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

std::string name_of(const Evaluator& evaluator) {
  return evaluator.options->name.empty() ? evaluator.options->kind : evaluator.options->name;
}

/// By name first: two evaluators may be of one kind.
const Evaluator* find(const Recipe& recipe, const std::string& wanted) {
  for (const Evaluator& evaluator : recipe.evaluate)
    if (name_of(evaluator) == wanted) return &evaluator;
  for (const Evaluator& evaluator : recipe.evaluate)
    if (evaluator.options->kind == wanted) return &evaluator;
  return nullptr;
}

bool of_rows(const Evaluator& evaluator) { return evaluator.kind->score && !evaluator.kind->statistic; }

/// What a file answers to the held-out rows.
struct Answers {
  std::vector<EvaluationRow> rows;
  std::vector<Evaluation> evaluations;
};

/// Each file reads the rows with its own tokenizer and template: a champion may have another base.
std::vector<EvaluationRow> rows_for(const Recipe& recipe, const std::vector<DatasetOptions>& files,
                                    const Tokenizer& tokenizer) {
  const ChatTemplate chat_template(tokenizer, chat_template_of(recipe));
  std::vector<EvaluationRow> rows;
  Ledger ledger;
  const Stream<Chat> chats = chats_of(files);
  for (Chat chat; chats(chat);)
    if (auto row = evaluation_row(tokenizer, chat_template, chat, encode_options(recipe), ledger))
      rows.push_back(std::move(*row));
  return rows;
}

Answers answers_of(const Recipe& recipe, const std::vector<Evaluator>& evaluators, std::vector<EvaluationRow> rows,
                   const Tokenizer& tokenizer, const fs::path& file, const std::string& on,
                   const ProgressSink& progress) {
  const auto served = ServedModel::open(file, {.threads = static_cast<int>(recipe.threads), .exact = true});
  Progress shown(progress);
  shown.start("judge the " + on, rows.size());
  Answers answers{std::move(rows), {}};
  answers.evaluations = evaluate(
      evaluators, answers.rows, *served, tokenizer, on, [&](size_t done, size_t) { shown.update(done); },
      resolver_of(recipe));
  shown.finish();
  return answers;
}

const Evaluation& named(const std::vector<Evaluation>& evaluations, const std::string& name) {
  for (const auto member : {&Evaluation::name, &Evaluation::kind})
    for (const Evaluation& evaluation : evaluations)
      if (evaluation.*member == name) return evaluation;
  fail(Exit::internal, "no evaluator gave {}", name);
}

bool is_share(const Evaluation& evaluation, const std::vector<double>& rows) {
  return evaluation.unit == "share" && std::all_of(rows.begin(), rows.end(), [](double x) { return x >= 0 && x <= 1; });
}

}  // namespace

const Evaluator& gate_evaluator(const Recipe& recipe) {
  const std::string& wanted = recipe.retrain->gate.evaluator;
  const Evaluator* found = wanted.empty() ? nullptr : find(recipe, wanted);
  std::vector<std::string> usable;
  for (const Evaluator& evaluator : recipe.evaluate) {
    if (!of_rows(evaluator) || evaluator.kind->better == 0) continue;
    usable.push_back(name_of(evaluator));
    if (wanted.empty() && !found) found = &evaluator;
  }
  if (!found || !of_rows(*found) || found->kind->better == 0)
    fail(Exit::usage,
         "{}: retrain.gate.evaluator: \"{}\" is no evaluator of `evaluate` that is better or worse row by row; there "
         "are: {}",
         recipe.file.string(), wanted, usable.empty() ? "none" : fmt::format("{}", fmt::join(usable, ", ")));
  return *found;
}

void check_retrain(const Recipe& recipe) {
  if (!recipe.retrain)
    fail(Exit::usage, "{}: the recipe has no retrain block (docs/operations.md)", recipe.file.string());
  const auto gguf = std::find_if(recipe.export_.files.begin(), recipe.export_.files.end(),
                                 [](const ExportFile& file) { return file.format == "gguf"; });
  if (gguf == recipe.export_.files.end() || gguf->merge == "adapter")
    fail(Exit::usage,
         "{}: retrain: the first file of format: gguf in export.files is what is promoted, and it must be one file "
         "(merge: requantize)",
         recipe.file.string());
  const Evaluator& compared = gate_evaluator(recipe);
  const std::string& kind = compared.options->kind;
  if (recipe.retrain->harm && kind != "exact_match" && kind != "choice_accuracy")
    fail(
        Exit::usage,
        "{}: retrain.harm compares the traffic's share of answers that are their labels with what the gate's evaluator "
        "found at the promotion; {} counts something else, allowed: exact_match, choice_accuracy",
        recipe.file.string(), name_of(compared));
  for (const auto& [name, limit] : recipe.retrain->gate.floors)
    if (!find(recipe, name))
      fail(Exit::usage, "{}: retrain.gate.floors: there is no evaluator \"{}\" in `evaluate`", recipe.file.string(),
           name);
}

void keep_common(std::vector<EvaluationRow>& a, std::vector<EvaluationRow>& b) {
  const auto without = [](std::vector<EvaluationRow>& rows, const std::vector<EvaluationRow>& others) {
    std::set<std::string> places;
    for (const EvaluationRow& row : others) places.insert(row.place);
    std::erase_if(rows, [&](const EvaluationRow& row) { return !places.contains(row.place); });
  };
  without(a, b);
  without(b, a);
}

std::vector<PromotionSlice> slices_of(const std::vector<EvaluationRow>& rows, size_t count, const std::string& by) {
  std::map<std::string, PromotionSlice> slices;
  for (size_t i = 0; by != "none" && i < std::min(count, rows.size()); ++i) {
    const std::string& place = rows[i].place;
    const std::string name = by == "answer" ? rows[i].expected : place.substr(0, place.rfind(':'));
    PromotionSlice& slice = slices[name];
    slice.name = name;
    slice.rows.push_back(i);
  }
  std::vector<PromotionSlice> list;
  for (auto& [name, slice] : slices) list.push_back(std::move(slice));
  return list;
}

std::vector<PromotionLimit> limits_of(const PromotionOptions& gate, uint64_t bytes,
                                      const std::function<Speed()>& measure) {
  std::vector<PromotionLimit> limits;
  if (gate.max_bytes)
    limits.push_back(
        {.name = "bytes", .value = static_cast<double>(bytes), .at_most = static_cast<double>(*gate.max_bytes)});
  if (!gate.max_first_token_seconds && !gate.min_tokens_per_second) return limits;
  const Speed speed = measure();
  if (gate.max_first_token_seconds)
    limits.push_back({.name = "seconds to the first token",
                      .value = speed.first_token_seconds,
                      .at_most = gate.max_first_token_seconds});
  if (gate.min_tokens_per_second)
    limits.push_back({.name = "tokens per second",
                      .value = speed.generation_tokens_per_second,
                      .at_least = gate.min_tokens_per_second});
  return limits;
}

std::vector<double> values_of(const Evaluation& evaluation) {
  // An influence is the row's part of the mean, less the mean: undone, and free of rounding where values are 0 or 1.
  std::vector<double> values;
  const auto n = static_cast<double>(evaluation.influence.size());
  for (const double influence : evaluation.influence) {
    const double value = evaluation.value + n * influence;
    const double whole = std::round(value);
    values.push_back(std::abs(value - whole) < 1e-9 ? whole : value);
  }
  return values;
}

std::vector<double> outcomes_of(const Evaluation& evaluation) {
  if (evaluation.influence.empty())
    fail(Exit::usage,
         "retrain.gate: {} is no mean over rows, so that two models cannot be compared row by row; choose "
         "another evaluator",
         evaluation.name);
  std::vector<double> outcomes = values_of(evaluation);
  for (double& outcome : outcomes) outcome *= evaluation.better;
  return outcomes;
}

PromotionFloor floor_of(const std::string& name, const FloorOptions& limit, const Evaluation& evaluation) {
  PromotionFloor floor{.name = name, .at_least = limit.at_least, .at_most = limit.at_most};
  floor.value = evaluation.value;
  floor.standard_error = evaluation.standard_error;
  floor.n = evaluation.n;
  floor.exact = evaluation.details.value("exact", false);
  // A share of rows has bounds of its own; one of tokens, or a mean of parts, by its standard error.
  std::vector<double> values = values_of(evaluation);
  if (is_share(evaluation, values)) floor.outcomes = std::move(values);
  return floor;
}

Judgement judge(const Recipe& recipe, const fs::path& champion, const fs::path& challenger,
                const ProgressSink& progress) {
  const PromotionOptions& options = recipe.retrain->gate;
  const Evaluator& compared = gate_evaluator(recipe);
  std::vector<Evaluator> evaluators = {compared};
  for (const auto& [name, limit] : options.floors)
    if (const Evaluator* floor = find(recipe, name); floor != &compared) evaluators.push_back(*floor);

  const auto files = with_local_paths(recipe, recipe.data.validation, progress);
  const auto tokenizer = Tokenizer::open(challenger);
  std::vector<EvaluationRow> rows = rows_for(recipe, files, *tokenizer), champion_rows;
  std::unique_ptr<Tokenizer> champion_tokenizer;
  if (!champion.empty()) {
    champion_tokenizer = Tokenizer::open(champion);
    champion_rows = rows_for(recipe, files, *champion_tokenizer);
    keep_common(rows, champion_rows);
  }
  const Answers ours = answers_of(recipe, evaluators, std::move(rows), *tokenizer, challenger, "challenger", progress);
  Judgement judgement{.verdict = {}, .evaluations = Json::array(), .accuracy = {}};
  PromotionCase given;
  given.without_champion = champion.empty();
  const Evaluation& challenged = ours.evaluations.front();
  if (!champion.empty()) {
    const Answers theirs =
        answers_of(recipe, {compared}, std::move(champion_rows), *champion_tokenizer, champion, "champion", progress);
    judgement.evaluations.push_back(theirs.evaluations.front().to_json());
    given.champion = outcomes_of(theirs.evaluations.front());
    given.challenger = outcomes_of(challenged);
    if (is_share(theirs.evaluations.front(), values_of(theirs.evaluations.front())) &&
        is_share(challenged, values_of(challenged)))
      given.range = 1;
    given.slices = slices_of(ours.rows, given.challenger.size(), options.slices);
  }
  for (const Evaluation& evaluation : ours.evaluations) judgement.evaluations.push_back(evaluation.to_json());
  for (const auto& [name, limit] : options.floors)
    given.floors.push_back(floor_of(name, limit, named(ours.evaluations, name)));
  given.limits = limits_of(options, fs::file_size(challenger),
                           [&] { return measure_speed(challenger, static_cast<int>(recipe.threads)); });
  const PromotionRule rule{.margin = options.margin, .alpha = options.alpha, .min_slice_rows = options.min_slice_rows};
  judgement.verdict = judge_promotion(given, rule);
  if (challenged.unit == "share") judgement.accuracy = challenged.value;
  return judgement;
}

}  // namespace retort
