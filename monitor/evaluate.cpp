#include "monitor/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/sources.h"
#include "monitor/binning.h"
#include "monitor/targets.h"

namespace retort {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// The rows that an evaluator looks at.
std::span<const EvaluationRow> limited(const Evaluator& evaluator, std::span<const EvaluationRow> rows) {
  const std::optional<int64_t>& limit = evaluator.options->limit;
  return rows.first(limit ? std::min(static_cast<size_t>(*limit), rows.size()) : rows.size());
}

void add(const Needs& more, Needs& needs) {
  needs.targets |= more.targets;
  needs.choices |= more.choices || more.every_choice;
  needs.every_choice |= more.every_choice;
  needs.match |= more.match;
  needs.answer |= more.answer;
  needs.max_tokens = std::max(needs.max_tokens, more.max_tokens);
}

/// An infinite or missing log-probability is the model's fault, and no mean should hide it.
void require_numbers(const Evaluator& evaluator, const EvaluationRow& row, const RowScore& score) {
  if (std::isfinite(score.numerator) && std::isfinite(score.denominator) &&
      std::all_of(score.figures.begin(), score.figures.end(), [](double x) { return std::isfinite(x); }))
    return;
  fail(Exit::bad_input, "{}: {}: the model's logits for this row are not finite numbers", row.place,
       evaluator.options->name);
}

void fill_in(const Evaluator& evaluator, const std::string& on, Evaluation& result) {
  const auto otherwise = [](std::string& text, const std::string& standard) {
    if (text.empty()) text = standard;
  };
  otherwise(result.kind, evaluator.options->kind);
  otherwise(result.name, evaluator.options->name);
  otherwise(result.data, evaluator.options->data);
  otherwise(result.on, on);
  otherwise(result.unit, evaluator.kind->unit);
  if (result.better == 0) result.better = evaluator.kind->better;
}

Evaluation estimate(const Evaluator& evaluator, std::span<const EvaluationRow> rows, std::span<const RowScore> scores,
                    const std::string& on) {
  const EvaluatorKind& kind = *evaluator.kind;
  Evaluation result;
  fill_in(evaluator, on, result);
  if (kind.statistic) {
    estimate_by_bootstrap(scores, kind.statistic, result);
    const Values replicates = values_of(result.replicates);
    result.details = {{"low", quantile(replicates, 0.025)}, {"high", quantile(replicates, 0.975)}};
  } else {
    estimate_ratio(scores, kind.link, kind.slope, result);
  }
  if (kind.details) result.details.update(kind.details(*evaluator.options, rows, scores));
  return result;
}

void require_rows(const Evaluator& evaluator, std::span<const EvaluationRow> rows) {
  if (rows.empty()) fail(Exit::bad_input, "evaluate: the {} data has no rows", evaluator.options->data);
}

}  // namespace

std::filesystem::path pulled(const std::string& path) { return pull({.uri = path, .sha256 = "", .name = ""}); }

void require_prompt(const Question& question) {
  const EvaluationRow& row = *question.row;
  const std::vector<int32_t>& ids = row.example.ids;
  const bool whole = row.prompt.size() <= ids.size() && std::equal(row.prompt.begin(), row.prompt.end(), ids.begin());
  if (!whole && (question.needs.choices || question.needs.match || question.needs.answer))
    fail(Exit::bad_input, "{}: the row was cut before its answer; data.max_length must be above {}", row.place,
         row.prompt.size());
}

std::vector<Evaluator> for_trained(std::span<const Evaluator> evaluators) {
  std::vector<Evaluator> result;
  for (const Evaluator& evaluator : evaluators) {
    if (evaluator.kind->score && !evaluator.kind->needs(*evaluator.options).answer) result.push_back(evaluator);
  }
  return result;
}

void check_evaluators(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                      const Resolve& resolve) {
  const Predictor indifferent = [](std::span<const Question> questions, const auto& each) {
    for (size_t i = 0; i < questions.size(); ++i) {
      require_prompt(questions[i]);
      const EvaluationRow& row = *questions[i].row;
      Reply reply;
      reply.targets.resize(trained_targets(row.example).ids.size());
      reply.choices.resize(row.answers.size());
      each(i, reply);
    }
  };
  std::vector<Evaluator> of_rows;
  for (const Evaluator& evaluator : evaluators) {
    if (evaluator.kind->score) of_rows.push_back(evaluator);
    if (evaluator.kind->check) evaluator.kind->check(*evaluator.options, resolve);
  }
  evaluate(of_rows, rows, indifferent, "check");
}

std::vector<Evaluation> evaluate(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                                 const Predictor& predictor, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress) {
  for (const Evaluator& evaluator : evaluators) {
    if (!evaluator.kind->score)
      fail(Exit::usage, "evaluate: {} measures a file in llama.cpp, {} is none", evaluator.options->name, on);
    require_rows(evaluator, rows);
  }
  std::vector<Question> questions;
  for (size_t i = 0; i < rows.size(); ++i) {
    Question question{&rows[i], {}};
    bool asked = false;
    for (const Evaluator& evaluator : evaluators) {
      if (i >= limited(evaluator, rows).size()) continue;
      add(evaluator.kind->needs(*evaluator.options), question.needs);
      asked = true;
    }
    if (!asked) break;
    questions.push_back(question);
  }
  if (questions.empty()) return {};
  const auto start = Clock::now();
  std::vector<std::vector<RowScore>> scores(evaluators.size());
  predictor(questions, [&](size_t i, const Reply& reply) {
    for (size_t e = 0; e < evaluators.size(); ++e) {
      if (i >= limited(evaluators[e], rows).size()) continue;
      scores[e].push_back(evaluators[e].kind->score(*evaluators[e].options, rows[i], reply));
      require_numbers(evaluators[e], rows[i], scores[e].back());
    }
    if (progress) progress(i + 1, questions.size());
  });
  const double seconds = seconds_since(start);
  std::vector<Evaluation> results;
  for (size_t e = 0; e < evaluators.size(); ++e) {
    results.push_back(estimate(evaluators[e], limited(evaluators[e], rows), scores[e], on));
    results.back().seconds = seconds;
  }
  return results;
}

std::vector<Evaluation> evaluate(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                                 ServedModel& model, const Tokenizer& tokenizer, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress, const Resolve& resolve) {
  std::vector<Evaluator> of_rows;
  for (const Evaluator& evaluator : evaluators) {
    if (evaluator.kind->score) of_rows.push_back(evaluator);
  }
  std::vector<Evaluation> scored = evaluate(of_rows, rows, predictor_of(model, tokenizer), on, progress), results;
  size_t next = 0;
  for (const Evaluator& evaluator : evaluators) {
    if (evaluator.kind->score) {
      results.push_back(std::move(scored[next++]));
      continue;
    }
    const auto start = Clock::now();
    std::vector<Evaluation> measured =
        evaluator.kind->measure(*evaluator.options, {model, tokenizer, limited(evaluator, rows), resolve});
    const double seconds = seconds_since(start);
    for (Evaluation& result : measured) {
      fill_in(evaluator, on, result);
      result.seconds = seconds;
      results.push_back(std::move(result));
    }
  }
  return results;
}

}  // namespace retort
