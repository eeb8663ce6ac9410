// Runs evaluators over a model, and compares what two models gave.
#pragma once

#include "monitor/evaluator.h"

namespace retort {

/// One question: a row and what is wanted of it.
struct Question {
  const EvaluationRow* row;
  Needs needs;
};

/// Error(bad_input) when an answer is asked for and truncation took a part of the row's prompt.
void require_prompt(const Question& question);

/// Answers questions in order; `each` gets the question's index and its reply.
using Predictor = std::function<void(std::span<const Question>, const std::function<void(size_t, const Reply&)>& each)>;

/// From the file, in llama.cpp. The objects must outlive the predictor.
Predictor predictor_of(ServedModel& model, const Tokenizer& tokenizer);
/// From the trainer's model, for Needs without `answer`. Greedy answers are found by teacher forcing: the reply is the
/// expected answer when the most likely token at each of its positions is the expected one, else the tokens up to the
/// first that differs. A model that gives the expected text by other tokens is not found this way.
Predictor predictor_of(CausalLM& model, const Tokenizer& tokenizer);
/// Those of `evaluators` that can be taken of the trainer's model: of rows, without free answers.
std::vector<Evaluator> for_trained(std::span<const Evaluator> evaluators);

using Resolve = std::function<std::filesystem::path(const std::string&)>;
/// A path as it stands: a file, or what pull() finds for a URI.
std::filesystem::path pulled(const std::string& path);

/// What evaluate() would find wrong with rows and options when a model has answered, found without one:
/// Error(bad_input) naming the first row that an evaluator cannot take, or what a kind's own check says.
void check_evaluators(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                      const Resolve& resolve = pulled);

/// Runs row evaluators on the first rows of `rows` in one pass. `progress` hears of rows done and rows in all.
/// Error(bad_input) when there is no row, or a model's figures of one are not numbers; Error(usage) for an evaluator
/// that measures a file.
std::vector<Evaluation> evaluate(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                                 const Predictor& predictor, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress = {});
/// Every evaluator on a served file: those of rows in one pass, then the others. In the order of `evaluators`; a kind
/// that measures may give several results.
std::vector<Evaluation> evaluate(std::span<const Evaluator> evaluators, std::span<const EvaluationRow> rows,
                                 ServedModel& model, const Tokenizer& tokenizer, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress = {},
                                 const Resolve& resolve = pulled);

/// a - b with the standard error of the difference. Results on the same rows are paired, so that it is smaller than the
/// two errors suggest; others (speeds, prices) are taken as independent. Error(internal) when the rows are not the same
/// in number.
struct Difference {
  double value, standard_error;
};
Difference difference(const Evaluation& a, const Evaluation& b);

/// Fills value, standard_error, n and influence: link(sum of numerators / sum of denominators) with the standard error
/// of the linearised ratio. Denominators that sum to 0 give the ratio 0.
void estimate_ratio(std::span<const RowScore> scores, double (*link)(double), double (*slope)(double),
                    Evaluation& evaluation);
/// The same for a ratio as it is.
void estimate_ratio(std::span<const RowScore> scores, Evaluation& evaluation);
/// A figure of an evaluation's details: `name`, and its standard error as `name`_stderr.
void add_ratio(const std::string& name, std::span<const RowScore> scores, Json& details);
/// The same for the mean of one of the rows' figures, or the ratio of the sums of two.
void add_ratio(const std::string& name, std::span<const RowScore> scores, size_t figure, Json& details);
void add_ratio(const std::string& name, std::span<const RowScore> scores, size_t figure, size_t by, Json& details);
/// Fills value, standard_error, n and replicates: the statistic and its standard deviation over 1,000 resamples of the
/// rows, drawn with a fixed seed.
void estimate_by_bootstrap(std::span<const RowScore> scores, double (*statistic)(std::span<const RowScore>),
                           Evaluation& evaluation);

/// A row as a report shows it.
struct Sample {
  std::string key, prompt, expected, generated;
  bool stopped;
};
/// Greedy answers to the first `count` rows that have a prompt.
std::vector<Sample> samples(ServedModel& model, const Tokenizer& tokenizer, std::span<const EvaluationRow> rows,
                            size_t count = 12, int64_t max_tokens = 64);

}  // namespace retort
