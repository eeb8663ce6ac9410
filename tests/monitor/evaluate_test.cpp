// Evaluators against transformers (golden/make_evaluate.py), in llama.cpp and in the trainer's model, and by hand.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/json.h"
#include "models/causal_lm.h"
#include "models/served.h"
#include "monitor/evaluate.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"
#include "tests/monitor/f32_model.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(std::filesystem::path(RETORT_GOLDEN) / "evaluate.json");
  return json;
}

std::vector<EvaluationRow> golden_rows() {
  std::vector<EvaluationRow> rows;
  const auto choices = golden()["choices"].get<std::vector<std::string>>();
  for (const Json& json : golden()["rows"]) {
    EvaluationRow row;
    row.place = row.key = fmt::format("row {}", rows.size());
    row.prompt = json["prompt"].get<std::vector<int32_t>>();
    row.answers = json["answers"].get<std::vector<std::vector<int32_t>>>();
    row.choices = choices;
    row.expected = json["expected"].get<std::string>();
    const auto answer = std::find(choices.begin(), choices.end(), row.expected) - choices.begin();
    row.example.ids = row.prompt;
    row.example.trained.assign(row.prompt.size(), 0);
    for (int32_t id : row.answers[static_cast<size_t>(answer)]) {
      row.example.ids.push_back(id);
      row.example.trained.push_back(1);
    }
    row.trained_bytes = static_cast<int64_t>(row.expected.size());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Evaluator> all_kinds() {
  return {evaluator_from({{"kind", "choice_accuracy"}}), evaluator_from({{"kind", "perplexity"}}),
          evaluator_from({{"kind", "exact_match"}, {"max_tokens", 8}})};
}

void expect_golden(const Predictor& predictor, bool every_choice) {
  const std::vector<EvaluationRow> rows = golden_rows();
  std::vector<Question> questions;
  for (const EvaluationRow& row : rows)
    questions.push_back({&row, {.targets = true, .choices = true, .match = true, .max_tokens = 8}});
  size_t next = 0;
  predictor(questions, [&](size_t i, const Reply& reply) {
    ASSERT_EQ(i, next++);
    const auto expected = golden()["rows"][i]["log_probabilities"].get<std::vector<double>>();
    ASSERT_EQ(reply.choices.size(), expected.size());
    const auto best = std::max_element(expected.begin(), expected.end()) - expected.begin();
    for (size_t c = 0; c < expected.size(); ++c) {
      if (every_choice || static_cast<int64_t>(c) == best) {
        EXPECT_NEAR(reply.choices[c], expected[c], 1e-3) << "row " << i << " choice " << c;
      } else {
        // An upper bound that is below the best is enough.
        EXPECT_GE(reply.choices[c], expected[c] - 1e-3);
        EXPECT_LT(reply.choices[c], expected[static_cast<size_t>(best)] + 1e-3);
      }
    }
  });
  EXPECT_EQ(next, rows.size());
  const std::vector<Evaluation> results = evaluate(all_kinds(), rows, predictor, "base");
  EXPECT_EQ(results[0].value, golden()["accuracy"].get<double>());
  EXPECT_NEAR(results[1].value / golden()["perplexity"].get<double>(), 1, 1e-3);
  EXPECT_GT(results[1].standard_error, 0);
  EXPECT_EQ(results[1].n, 20);
  int matches = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<int32_t> answer(rows[i].example.ids.begin() + static_cast<int64_t>(rows[i].prompt.size()),
                                      rows[i].example.ids.end());
    matches += golden()["rows"][i]["greedy"].get<std::vector<int32_t>>() == answer;
  }
  EXPECT_EQ(results[2].value, matches / 20.0);
}

TEST(Evaluate, ServedModelAgreesWithTransformers) {
  const auto tokenizer = Tokenizer::open(smollm2_path());
  const auto model = ServedModel::open(f32_model(), {.exact = true});
  expect_golden(predictor_of(*model, *tokenizer), true);
}

TEST(Evaluate, TrainersModelAgreesWithTransformers) {
  const auto tokenizer = Tokenizer::open(smollm2_path());
  const auto checkpoint = Checkpoint::open(smollm2_path());
  const auto model = CausalLM::load(*checkpoint, {});
  expect_golden(predictor_of(*model, *tokenizer), false);
  // Every choice of a few rows, where that is asked for.
  std::vector<EvaluationRow> rows = golden_rows();
  rows.resize(3);
  std::vector<Question> questions;
  for (const EvaluationRow& row : rows) questions.push_back({&row, {.choices = true, .every_choice = true}});
  predictor_of(*model, *tokenizer)(questions, [&](size_t i, const Reply& reply) {
    for (size_t c = 0; c < reply.choices.size(); ++c)
      EXPECT_NEAR(reply.choices[c], golden()["rows"][i]["log_probabilities"][c].get<double>(), 1e-3) << i << " " << c;
  });
}

/// Replies that are made up.
Predictor made_up(const std::vector<Reply>& replies) {
  return [replies](std::span<const Question> questions, const auto& each) {
    for (size_t i = 0; i < questions.size(); ++i) each(i, replies[i]);
  };
}

EvaluationRow made_up_row() {
  EvaluationRow row;
  row.place = "file:1";
  row.prompt = {1};
  row.choices = {"yes", "no"};
  row.answers = {{2}, {3}};
  row.expected = "yes";
  row.trained_bytes = 4;
  return row;
}

TEST(Evaluate, ValuesAndErrorsByHand) {
  std::vector<Reply> replies(4);
  for (Reply& reply : replies) reply.choices = {-1, -2};
  replies[3].choices = {-2, -1};
  replies[0].targets = {-1, -3};
  replies[1].targets = {-2};
  replies[2].targets = {-2, -2, -2};
  replies[3].targets = {-6};
  for (Reply& reply : replies) reply.generated = " yes\n", reply.stopped = true;
  replies[1].stopped = false;
  replies[2].generated = "yes, surely";
  const std::vector<EvaluationRow> rows(4, made_up_row());
  const auto results = evaluate(all_kinds(), rows, made_up(replies), "base");
  EXPECT_DOUBLE_EQ(results[0].value, 0.75);
  EXPECT_NEAR(results[0].standard_error, std::sqrt(0.75 * 0.25 / 3), 1e-12);  // sqrt(p (1 - p) / (n - 1))
  const double mean = 18.0 / 7;
  EXPECT_NEAR(results[1].value, std::exp(mean), 1e-9);
  // Linearised ratio: residuals x - mean * n of each row.
  const double residuals =
      std::pow(4 - 2 * mean, 2) + std::pow(2 - mean, 2) + std::pow(6 - 3 * mean, 2) + std::pow(6 - mean, 2);
  EXPECT_NEAR(results[1].standard_error, std::exp(mean) * std::sqrt(residuals * 4 / 3) / 7, 1e-9);
  EXPECT_NEAR(results[1].details.at("bits_per_byte"), 18 / std::log(2) / 16, 1e-9);
  EXPECT_DOUBLE_EQ(results[2].value, 0.5);
  EXPECT_EQ(results[0].to_json()["on"], "base");
  // Paired: equal results have no error at all.
  const Difference none = difference(results[0], results[0]);
  EXPECT_EQ(none.value, 0);
  EXPECT_EQ(none.standard_error, 0);
}

TEST(Evaluate, PairedErrorsByHand) {
  const auto results = [](const std::vector<std::vector<double>>& targets, const std::vector<bool>& right) {
    std::vector<Reply> replies(targets.size());
    for (size_t i = 0; i < targets.size(); ++i) {
      replies[i].targets = targets[i];
      replies[i].choices = {right[i] ? -1.0 : -3.0, -2};
      replies[i].generated = "yes", replies[i].stopped = true;
    }
    return evaluate(all_kinds(), std::vector<EvaluationRow>(targets.size(), made_up_row()), made_up(replies), "x");
  };
  const auto a = results({{-1, -1}, {-2}, {-4, -2}, {-1}}, {true, true, false, true});
  const auto b = results({{-2, -2}, {-3}, {-4, -4}, {-3}}, {false, true, false, false});
  // Accuracy: the rows' differences are 1, 0, 0, 1 with mean 1/2 and sample variance 1/3; the error is that of a mean.
  const Difference accuracy = difference(a[0], b[0]);
  EXPECT_DOUBLE_EQ(accuracy.value, 0.5);
  EXPECT_NEAR(accuracy.standard_error, std::sqrt(1.0 / 3 / 4), 1e-12);
  // Perplexity: sums of 11 and 18 nats over 6 tokens. A row's part of exp(r) is exp(r) (nats - r tokens) / 6.
  const double r = 11.0 / 6, s = 18.0 / 6;
  const double tokens[] = {2, 1, 2, 1}, nats_a[] = {2, 2, 6, 1}, nats_b[] = {4, 3, 8, 3};
  double squares = 0;
  for (int i = 0; i < 4; ++i) {
    const double part = std::exp(r) * (nats_a[i] - r * tokens[i]) / 6 - std::exp(s) * (nats_b[i] - s * tokens[i]) / 6;
    squares += part * part;
  }
  const Difference perplexity = difference(a[1], b[1]);
  EXPECT_NEAR(perplexity.value, std::exp(r) - std::exp(s), 1e-12);
  EXPECT_NEAR(perplexity.standard_error, std::sqrt(squares * 4 / 3), 1e-12);
}

TEST(Evaluate, LimitsApplyToEachEvaluator) {
  std::vector<Evaluator> options = all_kinds();
  options[0] = evaluator_from({{"kind", "choice_accuracy"}, {"limit", 1}});
  options[1] = evaluator_from({{"kind", "perplexity"}, {"limit", 2}});
  Reply reply;
  reply.choices = {-1, -2};
  reply.targets = {-1};
  const auto results =
      evaluate(options, std::vector<EvaluationRow>(3, made_up_row()), made_up({reply, reply, reply}), "x");
  EXPECT_EQ(results[0].n, 1);
  EXPECT_EQ(results[0].standard_error, 0);
  EXPECT_EQ(results[1].n, 2);
  EXPECT_EQ(results[2].n, 3);
}

TEST(Evaluate, NamesTheRowThatCannotBeEvaluated) {
  Reply reply;
  reply.choices = {-1, -2};
  EvaluationRow row = made_up_row();
  const std::vector<Evaluator> options = {evaluator_from({{"kind", "choice_accuracy"}})};
  row.choices.clear();
  auto run = [&] { evaluate(options, std::vector<EvaluationRow>{row}, made_up({reply}), "x"); };
  expect_error(Exit::bad_input, {"file:1", "at least two choices"}, run);
  row = made_up_row();
  row.expected = "perhaps";
  expect_error(Exit::bad_input, {"file:1", "perhaps", "none of the row's 2 choices"}, run);
  expect_error(Exit::bad_input, {"no rows"}, [&] { evaluate(options, {}, made_up({}), "x"); });
}

}  // namespace
}  // namespace retort
