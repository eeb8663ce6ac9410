// A task in lm-evaluation-harness' form: its metrics, each a result of its own.
#include "core/error.h"
#include "monitor/harness_task.h"

namespace retort {
namespace {

struct Options : EvaluatorOptions {
  std::string path;
};
const Schema<Options>& schema_of(Options*) {
  static const auto schema =
      evaluator_schema<Options>("").field("path", &Options::path, "the task's YAML file", {.required = true});
  return schema;
}

HarnessTask load(const EvaluatorOptions& options, const Resolve& resolve) {
  return load_harness_task(resolve(static_cast<const Options&>(options).path), options.limit.value_or(0));
}

/// Question and answer without the worked examples, which all of the task's rows share.
std::vector<Chat> held_out(const EvaluatorOptions& options, const Resolve& resolve) {
  std::vector<Chat> rows;
  for (HarnessDocument& document : load(options, resolve).documents)
    rows.push_back({.place = std::move(document.place),
                    .key = {},
                    .messages = {{"user", std::move(document.question)}, {"assistant", std::move(document.target)}},
                    .text = {},
                    .choices = {}});
  return rows;
}

}  // namespace

extern const EvaluatorKind evaluator_task;
const EvaluatorKind evaluator_task{
    .summary = "the metrics of a task in the form of lm-evaluation-harness, on the task's own data",
    .unit = "",
    .schema = evaluator_schema_of<Options>,
    .read = read_evaluator_options<Options>,
    .measure =
        [](const EvaluatorOptions& options, const Measured& measured) {
          const HarnessTask task = load(options, measured.resolve);
          return evaluate_harness_task(task, harness_rows(task, measured.tokenizer),
                                       predictor_of(measured.model, measured.tokenizer));
        },
    .check = [](const EvaluatorOptions& options, const Resolve& resolve) { load(options, resolve); },
    .held_out = held_out};

}  // namespace retort
