// Evaluators: what a model is asked about each held-out row, and the number that its replies make.
//
// All evaluators of a run share one pass over each model: each says what it needs of a row, a Predictor answers for a
// model of any kind, and each turns the replies into one contribution a row. One file a kind in monitor/evaluators/.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/schema.h"
#include "data/chat_template.h"
#include "data/encode.h"
#include "data/example.h"
#include "data/tokenizer.h"

namespace retort {

class CausalLM;
class ServedModel;

/// One entry of a recipe's `evaluate`.
struct EvaluatorOptions {
  std::string kind;
  std::string data = "validation";
  std::optional<int64_t> limit;  ///< the first N rows
  int64_t max_tokens = 64;       ///< longest answer that exact_match generates
};
const Schema<EvaluatorOptions>& schema_of(EvaluatorOptions*);

/// A held-out row, tokenized. `prompt` and `answers` are empty for plain text.
struct EvaluationRow {
  std::string place, key;
  Example example;              ///< the whole row with its trained tokens
  std::vector<int32_t> prompt;  ///< up to where the assistant answers
  std::string prompt_text, expected;
  std::vector<std::string> choices;
  std::vector<std::vector<int32_t>> answers;  ///< tokens of each choice, the end-of-turn included
  int64_t trained_bytes = 0;                  ///< UTF-8 bytes of the trained tokens' text, without special tokens
};

/// nullopt when encode() drops the row. Errors as encode() throws them.
std::optional<EvaluationRow> evaluation_row(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                            const Chat& chat, const EncodeOptions& options, Ledger& ledger);

/// What is asked about a row.
struct Needs {
  bool targets = false;     ///< log-probabilities of the trained tokens
  bool choices = false;     ///< log-probability of each choice
  bool generation = false;  ///< the greedy answer
};

struct Reply {
  std::vector<double> targets;  ///< log p of each trained token, in nats
  /// Total log p of each choice with its end-of-turn. A choice that cannot be the best one may have an upper bound here
  /// that is below the best total: the largest entry is always exact.
  std::vector<double> choices;
  /// The greedy answer, as far as it may still become the expected one.
  std::string generated;
  bool stopped = false;  ///< an end-of-generation token ended `generated`
};

/// One question: a row and what is wanted of it.
struct Question {
  const EvaluationRow* row;
  Needs needs;
  int64_t max_tokens = 64;
};

/// Error(bad_input) when an answer is asked for and truncation took a part of the row's prompt.
void require_prompt(const Question& question);

/// Answers questions in order; `each` gets the question's index and its reply.
using Predictor = std::function<void(std::span<const Question>, const std::function<void(size_t, const Reply&)>& each)>;

/// From the file, in llama.cpp. The objects must outlive the predictor.
Predictor predictor_of(ServedModel& model, const Tokenizer& tokenizer);
/// From the trainer's model. Greedy answers are found by teacher forcing: the reply is the expected answer when the
/// most likely token at each of its positions is the expected one, else the tokens up to the first that differs. A
/// model that gives the expected text by other tokens is not found this way.
Predictor predictor_of(CausalLM& model, const Tokenizer& tokenizer);

/// A row's part of a ratio of sums.
struct RowScore {
  double numerator = 0, denominator = 0;
};

/// A kind of evaluation: value = link(sum of numerators / sum of denominators).
struct EvaluatorKind {
  const char* summary;  ///< one line
  Needs needs;
  /// Error(bad_input) naming the row when it lacks what is needed.
  RowScore (*score)(const EvaluationRow& row, const Reply& reply);
  double (*link)(double ratio) = [](double ratio) { return ratio; };
  double (*slope)(double ratio) = [](double) { return 1.0; };  ///< the derivative of link
  /// More figures, by name.
  std::map<std::string, double> (*details)(std::span<const EvaluationRow> rows,
                                           std::span<const RowScore> scores) = nullptr;
};

/// Every kind by name.
const std::map<std::string, const EvaluatorKind*>& evaluator_kinds();

struct Evaluation {
  std::string kind, data, on;  ///< on: "base", "trained", "shipped:Q4_K_M"
  double value = 0;
  double standard_error = 0;  ///< of the value over rows (linearised ratio); 0 for fewer than two rows
  int64_t n = 0;              ///< rows
  double seconds = 0;         ///< of the whole pass, which all evaluators of a call share
  std::map<std::string, double> details;
  std::vector<double> influence;  ///< each row's share of (value - true value), for paired differences
  /// An entry of report.json's "evaluate".
  Json to_json() const;
};

/// Error(bad_input) naming the first row that an evaluator of `options` cannot take: what evaluate() would find when a
/// model has answered, found without one.
void check_rows(std::span<const EvaluatorOptions> options, std::span<const EvaluationRow> rows);

/// Runs every evaluator of `options` on the first rows of `rows` (all named options.data) in one pass. `progress` hears
/// of rows done and rows in all. Error(bad_input) when there is no row.
std::vector<Evaluation> evaluate(std::span<const EvaluatorOptions> options, std::span<const EvaluationRow> rows,
                                 const Predictor& predictor, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress = {});

/// a - b on the same rows, with the standard error of the difference (rows are paired, so it is smaller than the two
/// errors suggest). Error(internal) when the rows are not the same in number.
struct Difference {
  double value, standard_error;
};
Difference difference(const Evaluation& a, const Evaluation& b);

/// A row as a report shows it.
struct Sample {
  std::string key, prompt, expected, generated;
  bool stopped;
};
/// Greedy answers to the first `count` rows that have a prompt.
std::vector<Sample> samples(ServedModel& model, const Tokenizer& tokenizer, std::span<const EvaluationRow> rows,
                            size_t count = 12, int64_t max_tokens = 64);

}  // namespace retort
