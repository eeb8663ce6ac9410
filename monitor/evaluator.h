// Evaluators: what a model is asked, and the number that its replies make. One file a kind in monitor/evaluators/.
//
// There are two sorts. One looks at rows: it says what it needs of each, and turns each reply into one contribution;
// all evaluators of a run share one pass over the model (monitor/evaluate.h). The other measures the file itself as
// llama.cpp serves it: its speed, its price, how far it can read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
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

/// The keys that every kind has; a kind's options inherit from it.
struct EvaluatorOptions {
  std::string kind;
  std::string name;  ///< what reports call it; empty: the kind
  std::string data = "validation";
  std::optional<int64_t> limit;  ///< the first N rows
};
/// Of kinds that let the model answer.
struct AnswerOptions : EvaluatorOptions {
  int64_t max_tokens = 64;
};

/// A held-out row, tokenized. `prompt` and `answers` are empty for plain text.
struct EvaluationRow {
  std::string place, key;
  Example example;              ///< the whole row with its trained tokens
  std::vector<int32_t> prompt;  ///< up to where the assistant answers
  std::string prompt_text, expected;
  std::vector<std::string> choices;
  std::vector<std::vector<int32_t>> answers;  ///< tokens of each choice, the end-of-turn included
  std::vector<std::string> until;             ///< a generated answer ends before any of these
  int64_t trained_bytes = 0;                  ///< UTF-8 bytes of the trained tokens' text, without special tokens
};

/// nullopt when encode() drops the row. Errors as encode() throws them.
std::optional<EvaluationRow> evaluation_row(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                            const Chat& chat, const EncodeOptions& options, Ledger& ledger);

/// What is asked about a row.
struct Needs {
  bool targets = false;       ///< log-probabilities of the trained tokens
  bool choices = false;       ///< log-probability of each choice that can be the best
  bool every_choice = false;  ///< and of all others
  bool match = false;         ///< the greedy answer, as far as it may still become the expected one
  bool answer = false;        ///< the whole greedy answer
  int64_t max_tokens = 0;     ///< longest answer
};

struct Reply {
  std::vector<double> targets = {};  ///< log p of each trained token, in nats
  /// Total log p of each choice. Without every_choice, a choice that cannot be the best one may have an upper bound
  /// here that is below the best total: the largest entry is always exact.
  std::vector<double> choices = {};
  std::string generated = {};    ///< the greedy answer, as far as it was asked for
  int64_t generated_tokens = 0;  ///< of `generated`, without the end of the turn
  bool stopped = false;          ///< an end-of-generation token or one of `until` ended it
};

/// A row's part of a ratio of sums, and what else the kind's own figures need of it.
struct RowScore {
  double numerator = 0, denominator = 1;
  std::vector<double> figures = {};
};

/// What an evaluator found.
struct Evaluation {
  std::string kind, name, data, on;  ///< on: "base", "trained", "shipped:Q4_K_M"
  std::string unit;                  ///< EvaluatorKind::unit
  int better = 0;                    ///< EvaluatorKind::better
  double value = 0;
  double standard_error = 0;  ///< of the value; 0 where it cannot be known: one row, a list price
  int64_t n = 0;              ///< rows, or runs
  double seconds = 0;         ///< of the whole pass, which all row evaluators of a call share
  Json details = Json::object();
  /// Each row's share of (value - true value), for paired differences. Empty: the value is no mean over rows.
  std::vector<double> influence;
  /// The value on resamples of the rows, the same rows for every model of equally many. Empty: influence tells.
  std::vector<double> replicates;
  /// An entry of report.json's "evaluate".
  Json to_json() const;
};

/// A file that is measured, and what it may be measured with.
struct Measured {
  ServedModel& model;
  const Tokenizer& tokenizer;
  std::span<const EvaluationRow> rows;  ///< limited already
  /// A path in an option (a source's name, a URI or a file) as a local file.
  std::function<std::filesystem::path(const std::string&)> resolve;
};

/// A kind of evaluation. Each file of monitor/evaluators/ defines `extern const EvaluatorKind evaluator_<name>`. A row
/// kind gives `needs` and `score`, and its value is link(sum of numerators / sum of denominators), or `statistic` of
/// the rows; a kind of the file gives `measure`.
struct EvaluatorKind {
  const char* summary;                      ///< one line
  const char* unit;                         ///< "share" (0 to 1), or what reports write after the number; "" for none
  int better = 0;                           ///< 1: higher is better, -1: lower, 0: neither
  const SchemaBase& (*schema)() = nullptr;  ///< of its options: evaluator_schema<T>(…); null: EvaluatorOptions alone
  std::shared_ptr<EvaluatorOptions> (*read)(const Yaml&) = nullptr;  ///< read_evaluator_options<T>; null with `schema`

  Needs (*needs)(const EvaluatorOptions& options) = nullptr;
  /// Error(bad_input) naming the row when it lacks what is needed.
  RowScore (*score)(const EvaluatorOptions& options, const EvaluationRow& row, const Reply& reply) = nullptr;
  double (*link)(double ratio) = [](double ratio) { return ratio; };
  double (*slope)(double ratio) = [](double) { return 1.0; };       ///< the derivative of link
  double (*statistic)(std::span<const RowScore> scores) = nullptr;  ///< instead of link; its error is bootstrapped
  /// More figures, by name, of rows that were scored.
  Json (*details)(const EvaluatorOptions& options, std::span<const EvaluationRow> rows,
                  std::span<const RowScore> scores) = nullptr;

  /// Everything but kind, name, data, on, unit, better and seconds, which the caller fills in where they are empty.
  std::vector<Evaluation> (*measure)(const EvaluatorOptions& options, const Measured& measured) = nullptr;
  /// Of a kind with `measure`: what can be wrong with the options and rows, found before there is a model. Optional.
  void (*check)(const EvaluatorOptions& options,
                const std::function<std::filesystem::path(const std::string&)>& resolve) = nullptr;
  /// Of a kind with data of its own: the rows that it looks at, which no training row may hold. Optional.
  std::vector<Chat> (*held_out)(const EvaluatorOptions& options,
                                const std::function<std::filesystem::path(const std::string&)>& resolve) = nullptr;
};

/// Every kind by name.
const std::map<std::string, const EvaluatorKind*>& evaluator_kinds();

/// One entry of a recipe's `evaluate`: {kind: …} with the kind's own keys beside it.
struct Evaluator {
  const EvaluatorKind* kind = nullptr;
  std::shared_ptr<const EvaluatorOptions> options;
};
void from_yaml(const Yaml& node, Evaluator& evaluator);
Json json_schema_of(Evaluator*);
Json json_of(const Evaluator& evaluator);
/// From its keys: evaluator_from({{"kind", "perplexity"}, {"limit", 20}}). Error(usage).
Evaluator evaluator_from(const Json& keys);

/// A schema that begins with the keys that every kind has.
template <typename T>
Schema<T> evaluator_schema(const char* summary) {
  return Schema<T>("evaluate", summary)
      .field("kind", &EvaluatorOptions::kind, "the evaluator", {.required = true})
      .field("name", &EvaluatorOptions::name, "what reports call it; empty: the kind")
      .field("data", &EvaluatorOptions::data, "rows to evaluate on", {.one_of = {"validation"}})
      .field("limit", &EvaluatorOptions::limit, "only the first rows", {.minimum = 1});
}
template <typename T>
Schema<T> answer_schema(const char* summary) {
  return evaluator_schema<T>(summary).field("max_tokens", &AnswerOptions::max_tokens,
                                            "longest answer that the model may give", {.minimum = 1});
}
template <typename T>
const SchemaBase& evaluator_schema_of() {
  return schema_of(static_cast<T*>(nullptr));
}
template <typename T>
std::shared_ptr<EvaluatorOptions> read_evaluator_options(const Yaml& node) {
  return std::make_shared<T>(from_yaml<T>(node));
}
const Schema<AnswerOptions>& schema_of(AnswerOptions*);
/// Needs of kinds whose options are AnswerOptions.
Needs needs_answer(const EvaluatorOptions& options);

/// Error(bad_input) when the row is plain text, which has no question that could be answered.
void require_question(const EvaluationRow& row, const char* kind);
/// Error(bad_input) when the row has fewer than two choices, or the expected answer is none of them; else its index.
size_t expected_choice(const EvaluationRow& row, const char* kind);

}  // namespace retort
