#include "monitor/evaluator.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "monitor/targets.h"

namespace retort {

#define KIND(name) extern const EvaluatorKind evaluator_##name;
#include "evaluator_kinds.inc"
#undef KIND

const std::map<std::string, const EvaluatorKind*>& evaluator_kinds() {
  static const std::map<std::string, const EvaluatorKind*> kinds = {
#define KIND(name) {#name, &evaluator_##name},
#include "evaluator_kinds.inc"
#undef KIND
  };
  return kinds;
}

const Schema<EvaluatorOptions>& schema_of(EvaluatorOptions*) {
  static const auto schema = [] {
    std::vector<std::string> kinds;
    for (const auto& [name, kind] : evaluator_kinds()) kinds.push_back(name);
    Check limit, tokens;
    limit.minimum = tokens.minimum = 1;
    return Schema<EvaluatorOptions>("evaluate",
                                    "A figure that is taken of the base, the trained and each shipped model.")
        .field("kind", &EvaluatorOptions::kind, "the evaluator", {.one_of = kinds, .required = true})
        .field("data", &EvaluatorOptions::data, "rows to evaluate on", {.one_of = {"validation"}})
        .field("limit", &EvaluatorOptions::limit, "only the first rows", limit)
        .field("max_tokens", &EvaluatorOptions::max_tokens, "longest answer that exact_match generates", tokens);
  }();
  return schema;
}

std::optional<EvaluationRow> evaluation_row(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                            const Chat& chat, const EncodeOptions& options, Ledger& ledger) {
  std::optional<Example> example = encode(tokenizer, chat_template, chat, options, ledger);
  if (!example) return std::nullopt;
  EvaluationRow row;
  row.place = chat.place;
  row.key = chat.key;
  row.example = std::move(*example);
  std::vector<int32_t> trained;
  for (size_t t = 1; t < row.example.ids.size(); ++t) {
    if (row.example.trained[t]) trained.push_back(row.example.ids[t]);
  }
  row.trained_bytes = static_cast<int64_t>(tokenizer.decode(trained).size());
  if (chat.messages.empty() || chat.messages.back().role != "assistant") return row;
  row.prompt = encode_prompt(tokenizer, chat_template, chat);
  std::span<const Message> messages(chat.messages);
  row.prompt_text = chat_template.render(messages.first(messages.size() - 1), true);
  row.expected = chat.messages.back().content;
  row.choices = chat.choices;
  for (const std::string& choice : chat.choices) {
    row.answers.push_back(encode_answer(tokenizer, chat_template, chat, choice));
  }
  return row;
}

Json Evaluation::to_json() const {
  Json json{{"kind", kind}, {"data", data},      {"on", on}, {"value", value}, {"stderr", standard_error},
            {"n", n},       {"seconds", seconds}};
  for (const auto& [name, figure] : details) json[name] = figure;
  return json;
}

void require_prompt(const Question& question) {
  const EvaluationRow& row = *question.row;
  const std::vector<int32_t>& ids = row.example.ids;
  const bool whole = row.prompt.size() <= ids.size() && std::equal(row.prompt.begin(), row.prompt.end(), ids.begin());
  if (!whole && (question.needs.choices || question.needs.generation))
    fail(Exit::bad_input, "{}: the row was cut before its answer; data.max_length must be above {}", row.place,
         row.prompt.size());
}

void check_rows(std::span<const EvaluatorOptions> options, std::span<const EvaluationRow> rows) {
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
  evaluate(options, rows, indifferent, "check");
}

std::vector<Evaluation> evaluate(std::span<const EvaluatorOptions> options, std::span<const EvaluationRow> rows,
                                 const Predictor& predictor, const std::string& on,
                                 const std::function<void(size_t, size_t)>& progress) {
  if (options.empty()) return {};
  struct Running {
    const EvaluatorKind* kind;
    size_t rows;
    std::vector<RowScore> scores;
  };
  std::vector<Running> running;
  for (const EvaluatorOptions& option : options) {
    auto kind = evaluator_kinds().find(option.kind);
    if (kind == evaluator_kinds().end()) fail(Exit::usage, "evaluate: there is no evaluator \"{}\"", option.kind);
    size_t limit = option.limit ? static_cast<size_t>(*option.limit) : rows.size();
    running.push_back({kind->second, std::min(limit, rows.size()), {}});
  }
  if (rows.empty()) fail(Exit::bad_input, "evaluate: the {} data has no rows", options[0].data);

  std::vector<Question> questions;
  for (size_t i = 0; i < rows.size(); ++i) {
    Question question{&rows[i], {}, 0};
    for (size_t e = 0; e < running.size(); ++e) {
      if (i >= running[e].rows) continue;
      const Needs& needs = running[e].kind->needs;
      question.needs.targets |= needs.targets;
      question.needs.choices |= needs.choices;
      question.needs.generation |= needs.generation;
      question.max_tokens = std::max(question.max_tokens, options[e].max_tokens);
    }
    if (question.needs.targets || question.needs.choices || question.needs.generation) questions.push_back(question);
  }
  const auto start = std::chrono::steady_clock::now();
  predictor(questions, [&](size_t i, const Reply& reply) {
    for (Running& one : running) {
      if (i < one.rows) one.scores.push_back(one.kind->score(rows[i], reply));
    }
    if (progress) progress(i + 1, questions.size());
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  std::vector<Evaluation> results;
  for (size_t e = 0; e < running.size(); ++e) {
    const auto& [kind, count, scores] = running[e];
    double numerator = 0, denominator = 0;
    for (const RowScore& score : scores) {
      numerator += score.numerator;
      denominator += score.denominator;
    }
    const double ratio = numerator / denominator;
    Evaluation result;
    result.kind = options[e].kind;
    result.data = options[e].data;
    result.on = on;
    result.value = kind->link(ratio);
    result.n = static_cast<int64_t>(scores.size());
    result.seconds = seconds;
    if (kind->details) result.details = kind->details(rows.first(count), scores);
    // The value's linear part in each row: its sum is zero, its sum of squares the variance.
    double squares = 0;
    for (const RowScore& score : scores) {
      double share = kind->slope(ratio) * (score.numerator - ratio * score.denominator) / denominator;
      result.influence.push_back(share);
      squares += share * share;
    }
    const double n = static_cast<double>(scores.size());
    if (n > 1) result.standard_error = std::sqrt(squares * n / (n - 1));
    results.push_back(std::move(result));
  }
  return results;
}

Difference difference(const Evaluation& a, const Evaluation& b) {
  if (a.influence.size() != b.influence.size()) {
    fail(Exit::internal, "a paired difference needs the same rows, found {} and {}", a.influence.size(),
         b.influence.size());
  }
  double squares = 0;
  for (size_t i = 0; i < a.influence.size(); ++i) squares += std::pow(a.influence[i] - b.influence[i], 2);
  const double n = static_cast<double>(a.influence.size());
  return {a.value - b.value, n > 1 ? std::sqrt(squares * n / (n - 1)) : 0};
}

}  // namespace retort
