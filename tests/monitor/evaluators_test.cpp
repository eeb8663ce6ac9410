// Evaluators' figures against other packages' (golden/make_evaluators.py), and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "core/json.h"
#include "monitor/evaluate.h"
#include "monitor/text_metrics.h"
#include "tests/core/support.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(RETORT_GOLDEN "/evaluators.json");
  return json;
}

TEST(TextMetrics, AgreeWithSquadRougeScoreAndNltk) {
  ASSERT_GT(golden()["texts"].size(), 12U);
  for (const Json& text : golden()["texts"]) {
    const std::string answer = text["answer"], expected = text["expected"];
    EXPECT_EQ(normalized(answer, kSquadNormalization), text["normalized"]) << answer;
    EXPECT_EQ(normalized(answer, kSquadNormalization) == normalized(expected, kSquadNormalization), text["exact"] == 1);
    EXPECT_NEAR(token_f1(answer, expected), text["f1"].get<double>(), 1e-12) << answer;
    EXPECT_NEAR(rouge_l(answer, expected), text["rouge_l"].get<double>(), 1e-12) << answer;
    for (const auto& [n, counts] : text["ngrams"].items()) {
      const NgramCounts grams = ngrams_of_words(answer, std::stoul(n));
      EXPECT_EQ(grams.total, counts[0]) << answer << " " << n;
      EXPECT_EQ(grams.distinct, counts[1]) << answer << " " << n;
    }
  }
}

TEST(TextMetrics, TakeBytesThatAreNoUtf8) {
  for (const std::string& broken : {std::string("\xff\xfe"), std::string("caf\xc3"), std::string("\xe2\x82"),
                                    std::string("a \xf0\x9f\x98 b"), std::string("\x80 the \xc0\xaf")}) {
    EXPECT_GE(token_f1(broken, broken), 0);
    EXPECT_LE(rouge_l(broken, "the café"), 1);
    EXPECT_FALSE(is_refusal(broken));
  }
  EXPECT_EQ(normalized("é€😀", {}), "é€😀");
}

TEST(TextMetrics, RefusalsAreFoundByTheirWordingAtTheBeginning) {
  EXPECT_TRUE(is_refusal("I\u2019m sorry, but I can\u2019t help with that."));
  EXPECT_TRUE(is_refusal("As an AI language model, I have no opinion."));
  EXPECT_FALSE(is_refusal("A modem turns bits into tones."));
  EXPECT_FALSE(is_refusal(std::string(300, 'x') + " I cannot help with that"));
  EXPECT_FALSE(is_refusal(""));
  for (std::string_view phrase : refusal_phrases())
    EXPECT_EQ(phrase.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), phrase.npos) << phrase;
}

/// Replies that are made up.
Predictor made_up(std::vector<Reply> replies) {
  return [replies = std::move(replies)](std::span<const Question> questions, const auto& each) {
    for (size_t i = 0; i < questions.size(); ++i) each(i, replies[i]);
  };
}

EvaluationRow question(const std::string& expected = "yes") {
  EvaluationRow row;
  row.place = "file:7";
  row.prompt = {1};
  row.example.ids = {1, 2};
  row.example.trained = {0, 1};
  row.choices = {"yes", "no"};
  row.answers = {{2}, {3}};
  row.expected = expected;
  row.trained_bytes = 3;
  return row;
}

Evaluation evaluated(const Json& keys, const std::vector<EvaluationRow>& rows, const std::vector<Reply>& replies) {
  return evaluate(std::vector{evaluator_from(keys)}, rows, made_up(replies), "x").front();
}

Reply answer(const std::string& text, int64_t tokens = 1, bool stopped = true) {
  return {.generated = text, .generated_tokens = tokens, .stopped = stopped};
}

TEST(Evaluators, CalibrationAgreesWithScikitLearnScipyAndNumpy) {
  const Json& expected = golden()["calibration"];
  std::vector<EvaluationRow> rows;
  std::vector<Reply> replies;
  for (size_t i = 0; i < expected["labels"].size(); ++i) {
    Reply reply;
    reply.choices = expected["log_probabilities"][i].get<std::vector<double>>();
    replies.push_back(reply);
    EvaluationRow row = question();
    row.choices = {"0", "1", "2", "3"};
    row.expected = std::to_string(expected["labels"][i].get<int>());
    rows.push_back(row);
  }
  const Evaluation found = evaluated({{"kind", "calibration"}}, rows, replies);
  EXPECT_NEAR(found.value, expected["ece"].get<double>(), 1e-12);
  for (const char* key : {"accuracy", "brier", "brier_stderr", "log_loss"})
    EXPECT_NEAR(found.details[key].get<double>(), expected[key].get<double>(), 1e-9) << key;
  const Json& temperature = found.details["temperature"];
  EXPECT_NEAR(temperature["fitted"].get<double>(), expected["temperature"].get<double>(), 1e-5);
  EXPECT_NEAR(temperature["error_before"].get<double>(), expected["ece_before"].get<double>(), 1e-12);
  EXPECT_NEAR(temperature["error_after"].get<double>(), expected["ece_after"].get<double>(), 1e-5);
  EXPECT_NEAR(temperature["log_loss_before"].get<double>(), expected["log_loss_before"].get<double>(), 1e-9);
  EXPECT_NEAR(temperature["log_loss_after"].get<double>(), expected["log_loss_after"].get<double>(), 1e-8);
  // 1,000 of our resamples against 4,000 of numpy's: a standard deviation's own error is 1 / sqrt(2 n) of it.
  EXPECT_NEAR(found.standard_error / expected["ece_stderr"].get<double>(), 1, 0.1);
  EXPECT_NEAR(found.details["low"].get<double>(), expected["ece_interval"][0].get<double>(), 0.01);
  EXPECT_NEAR(found.details["high"].get<double>(), expected["ece_interval"][1].get<double>(), 0.01);
  double loss_squares = 0;
  for (size_t i = 0; i < replies.size(); ++i) {
    const std::vector<double>& log_p = replies[i].choices;
    double sum = 0;
    for (const double value : log_p) sum += std::exp(value - log_p[0]);
    const double loss = log_p[0] + std::log(sum) - log_p[expected["labels"][i].get<size_t>()];
    loss_squares += std::pow(loss - expected["log_loss"].get<double>(), 2);
  }
  EXPECT_NEAR(found.details["log_loss_stderr"].get<double>(), std::sqrt(loss_squares / 199 / 200), 1e-9);
  EXPECT_NEAR(found.details["accuracy_stderr"].get<double>(),
              std::sqrt(expected["accuracy"].get<double>() * (1 - expected["accuracy"].get<double>()) / 199), 1e-12);
  double in_bins = 0;
  for (const Json& bin : found.details["reliability"]) in_bins += bin["rows"].get<double>();
  EXPECT_EQ(in_bins, 200);
  // Paired: the same rows are resampled for both models.
  EXPECT_EQ(difference(found, found).standard_error, 0);
  Evaluation other = evaluated({{"kind", "calibration"}}, rows, std::vector<Reply>(replies.rbegin(), replies.rend()));
  EXPECT_GT(difference(found, other).standard_error, 0);
}

// Each half is resampled in itself, as its rows stay what they are: fitted, or measured.
TEST(Evaluators, TheTemperaturesErrorIsThatOfResamples) {
  const Json& expected = golden()["calibration"];
  const size_t count = expected["labels"].size();
  const auto fitted = [&](const std::vector<size_t>& drawn) {
    std::vector<EvaluationRow> rows;
    std::vector<Reply> replies;
    for (const size_t i : drawn) {
      rows.push_back(question(std::to_string(expected["labels"][i].get<int>())));
      rows.back().choices = {"0", "1", "2", "3"};
      replies.emplace_back().choices = expected["log_probabilities"][i].get<std::vector<double>>();
    }
    return evaluated({{"kind", "calibration"}}, rows, replies).details["temperature"];
  };
  std::vector<size_t> all(count);
  for (size_t i = 0; i < count; ++i) all[i] = i;
  const Json found = fitted(all);
  std::mt19937_64 random(3);
  constexpr int resamples = 120;
  double sum = 0, squares = 0, error = 0, error_squares = 0;
  for (int r = 0; r < resamples; ++r) {
    std::vector<size_t> drawn(count);
    for (size_t i = 0; i < count; ++i) drawn[i] = random() % (count / 2) * 2 + i % 2;
    const Json again = fitted(drawn);
    sum += again["fitted"].get<double>(), squares += std::pow(again["fitted"].get<double>(), 2);
    error += again["error_before"].get<double>(), error_squares += std::pow(again["error_before"].get<double>(), 2);
  }
  const auto deviation = [](double total, double of_squares) {
    return std::sqrt((of_squares - total * total / resamples) / (resamples - 1));
  };
  // A standard deviation of 120 is off by 6 %, the linear form by what is not linear in 100 rows.
  EXPECT_NEAR(found["fitted_stderr"].get<double>() / deviation(sum, squares), 1, 0.2);
  EXPECT_NEAR(found["error_before_stderr"].get<double>() / deviation(error, error_squares), 1, 0.2);
  for (const char* key : {"error_after_stderr", "log_loss_before_stderr", "log_loss_after_stderr"})
    EXPECT_GT(found[key].get<double>(), 0) << key;
}

TEST(Evaluators, PerplexitysErrorAgreesWithScipysBootstrap) {
  std::vector<Reply> replies;
  for (const Json& targets : golden()["perplexity"]["targets"]) {
    replies.emplace_back().targets = targets.get<std::vector<double>>();
  }
  const std::vector<EvaluationRow> rows(replies.size(), question());
  const Evaluation found = evaluated({{"kind", "perplexity"}}, rows, replies);
  EXPECT_NEAR(found.value, golden()["perplexity"]["value"].get<double>(), 1e-9);
  EXPECT_NEAR(found.standard_error / golden()["perplexity"]["stderr"].get<double>(), 1, 0.1);
  const Evaluation bits = evaluated({{"kind", "bits_per_byte"}}, rows, replies);
  EXPECT_NEAR(bits.value, found.details["bits_per_byte"].get<double>(), 1e-12);
  EXPECT_GT(bits.standard_error, 0);
  EXPECT_NEAR(found.details["bits_per_byte_stderr"].get<double>(), bits.standard_error, 1e-12);
  EXPECT_NEAR(found.details["nats_per_token_stderr"].get<double>(), found.standard_error / found.value, 1e-12);
}

TEST(Evaluators, ChoicesAreComparedAsTheyAreOrByTheirLength) {
  EvaluationRow row = question("zwölf");
  row.choices = {"no", "zwölf"};  // 2 and 5 characters, 2 and 6 bytes
  Reply reply;
  reply.choices = {-2, -5.5};
  const auto right = [&](const char* by) {
    return evaluated({{"kind", "choice_accuracy"}, {"normalize", by}}, {row}, {reply}).value;
  };
  EXPECT_EQ(right("none"), 0);
  EXPECT_EQ(right("characters"), 0);  // -1 > -1.1
  EXPECT_EQ(right("bytes"), 1);       // -1 < -0.917
  reply.choices = {-2, -4.9};
  EXPECT_EQ(right("characters"), 1);
}

TEST(Evaluators, ExactMatchMakesAlikeWhatItsOptionsSay) {
  const auto matches = [](Json keys, const Reply& reply) {
    keys["kind"] = "exact_match";
    return evaluated(keys, {question("The Answer.")}, {reply}).value;
  };
  EXPECT_EQ(matches({}, answer(" The Answer.\n")), 1);
  EXPECT_EQ(matches({{"strip", false}}, answer(" The Answer.")), 0);
  EXPECT_EQ(matches({}, answer("the answer")), 0);
  EXPECT_EQ(matches({{"ignore_case", true}}, answer("the answer.")), 1);
  EXPECT_EQ(matches({{"ignore_case", true}}, answer("the answer")), 0);
  EXPECT_EQ(matches({{"ignore_case", true}, {"ignore_punctuation", true}}, answer("the answer")), 1);
  EXPECT_EQ(matches({{"ignore_numbers", true}}, answer("The Answer12.")), 1);
  EXPECT_EQ(matches({{"squad", true}}, answer("an  answer")), 1);
  EXPECT_EQ(matches({}, answer("The Answer.", 3, false)), 0);
  EXPECT_EQ(matches({{"must_stop", false}}, answer("The Answer.", 3, false)), 1);
}

TEST(Evaluators, AnswersAreMeasured) {
  const std::vector<EvaluationRow> rows = {question("one two three four"), question("five")};
  const std::vector<Reply> replies = {answer("a b c d a b c d", 8), answer("I cannot help with that", 5, false)};
  const Evaluation repetition = evaluated({{"kind", "repetition"}}, rows, replies);
  EXPECT_NEAR(repetition.value, 1.0 / 7, 1e-12);  // abcd again, of 5 + 2
  EXPECT_NEAR(repetition.details["distinct_1"].get<double>(), 9.0 / 13, 1e-12);
  EXPECT_NEAR(repetition.details["distinct_2"].get<double>(), 8.0 / 11, 1e-12);
  const Evaluation length = evaluated({{"kind", "length"}}, rows, replies);
  EXPECT_EQ(length.value, 6.5);
  EXPECT_NEAR(length.standard_error, 1.5, 1e-12);
  EXPECT_EQ(length.details["cut_share"], 0.5);
  EXPECT_EQ(length.details["mean_expected_bytes"], 11);
  // Of two rows: half their distance. 15 and 23 bytes of answer, 18 and 4 of what was expected.
  EXPECT_NEAR(length.details["mean_bytes_stderr"].get<double>(), 4, 1e-12);
  EXPECT_NEAR(length.details["mean_expected_bytes_stderr"].get<double>(), 7, 1e-12);
  EXPECT_NEAR(length.details["cut_share_stderr"].get<double>(), 0.5, 1e-12);
  // 4 of 8 and 5 of 5 words: residuals 4 - 9/13 8 and 5 - 9/13 5, whose sum is 0.
  EXPECT_NEAR(repetition.details["distinct_1_stderr"].get<double>(), 2 * (5 - 45.0 / 13) / 13, 1e-12);
  EXPECT_EQ(evaluated({{"kind", "refusal"}}, rows, replies).value, 0.5);
  EXPECT_EQ(evaluated({{"kind", "f1"}}, {question("yes")}, {answer("Yes!")}).value, 1);
  EXPECT_NEAR(evaluated({{"kind", "rouge_l"}}, {question("yes it is")}, {answer("yes")}).value, 0.5, 1e-12);
  // Nothing to repeat is no repetition.
  EXPECT_EQ(evaluated({{"kind", "repetition"}}, {question()}, {answer("")}).value, 0);
}

TEST(Evaluators, EveryRowKindRefusesWhatItCannotJudge) {
  EvaluationRow text = question();
  text.prompt.clear();
  text.choices.clear();
  text.example.trained = {0, 0};
  text.trained_bytes = 0;
  for (const auto& [name, kind] : evaluator_kinds()) {
    if (!kind->score) continue;
    SCOPED_TRACE(name);
    const Json keys = {{"kind", name}};
    expect_error(Exit::bad_input, {"no rows"}, [&] { evaluated(keys, {}, {}); });
    expect_error(Exit::bad_input, {"file:7"}, [&] { evaluated(keys, {text}, {Reply{}}); });
    EXPECT_TRUE(kind->needs);
  }
}

TEST(Evaluators, LogitsThatAreNoNumbersAreRefusedByRow) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    for (const char* kind : {"perplexity", "bits_per_byte", "choice_accuracy", "calibration"}) {
      Reply reply;
      reply.targets = {bad};
      reply.choices = {-1, bad};
      expect_error(Exit::bad_input, {"file:7", kind, "not finite"}, [&] {
        evaluated({{"kind", kind}}, {question()}, {reply});
      });
    }
  }
}

TEST(Evaluators, OptionsAreStrict) {
  expect_error(Exit::usage, {"perplexitty", "did you mean perplexity"}, [] {
    evaluator_from({{"kind", "perplexitty"}});
  });
  expect_error(Exit::usage, {"kind", "missing", "bits_per_byte"}, [] { evaluator_from({{"limit", 3}}); });
  expect_error(Exit::usage, {"max_tokens", "unknown key"}, [] {
    evaluator_from({{"kind", "perplexity"}, {"max_tokens", 3}});
  });
  expect_error(Exit::usage, {"found 0", "at least 1"}, [] { evaluator_from({{"kind", "f1"}, {"limit", 0}}); });
  expect_error(Exit::usage, {"champion", "reference"}, [] {
    evaluator_from({{"kind", "kl"}, {"champion", "x.gguf"}});
  });
  expect_error(Exit::usage, {"prices"}, [] { evaluator_from({{"kind", "cost"}}); });
  expect_error(Exit::usage, {"machine_hour, or input and output"}, [] {
    evaluator_from({{"kind", "cost"}, {"prices", {{{"name", "a"}, {"machine_hour", 1}, {"input", 1}}}}});
  });
  const Evaluator named = evaluator_from({{"kind", "f1"}, {"name", "answers"}, {"max_tokens", 8}});
  EXPECT_EQ(named.options->name, "answers");
  EXPECT_EQ(json_of(named)["max_tokens"], 8);
  EXPECT_EQ(evaluator_from({{"kind", "f1"}}).options->name, "f1");
}

TEST(Evaluators, DifferencesOfSpeedsAreNotPaired) {
  Evaluation a, b;
  a.value = 10, a.standard_error = 3, b.value = 6, b.standard_error = 4;
  const Difference apart = difference(a, b);
  EXPECT_EQ(apart.value, 4);
  EXPECT_EQ(apart.standard_error, 5);
  b.n = 3;
  expect_error(Exit::internal, {"same rows"}, [&] { difference(a, b); });
}

}  // namespace
}  // namespace retort
