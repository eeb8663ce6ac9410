// Evaluators that measure a file, and answers, on the real model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/chat_template.h"
#include "models/served.h"
#include "monitor/evaluate.h"
#include "monitor/speed_estimate.h"
#include "tests/core/support.h"
#include "tests/data/fake_tokenizer.h"
#include "tests/data/smollm2.h"
#include "tests/monitor/changed_model.h"

namespace retort {
namespace {

std::vector<EvaluationRow> rows_of(const Tokenizer& tokenizer) {
  const ChatTemplate chat_template(tokenizer);
  std::vector<EvaluationRow> rows;
  Ledger ledger;
  for (const auto& [question, answer] : {std::pair("What is a modem?", "A device that turns bits into tones."),
                                         std::pair("What is a compiler?", "A program that translates source code."),
                                         std::pair("What is a byte?", "Eight bits.")}) {
    Chat chat;
    chat.place = chat.key = question;
    chat.messages = {{"user", question}, {"assistant", answer}};
    rows.push_back(*evaluation_row(tokenizer, chat_template, chat, {}, ledger));
  }
  return rows;
}

struct Measuring : testing::Test {
  const Tokenizer& tokenizer = smollm2();
  std::vector<EvaluationRow> rows = rows_of(tokenizer);
  std::vector<Evaluation> measured(const Json& keys, ServedModel& model) {
    return evaluate(std::vector{evaluator_from(keys)}, rows, model, tokenizer, "x");
  }
};

TEST_F(Measuring, AnswersAreWholeWhereTheyAreMeasured) {
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  const std::vector<Evaluation> results =
      evaluate(std::vector{evaluator_from({{"kind", "length"}, {"max_tokens", 20}}),
                           evaluator_from({{"kind", "exact_match"}, {"max_tokens", 4}})},
               rows, *model, tokenizer, "x");
  EXPECT_GT(results[0].value, 10);
  EXPECT_LE(results[0].value, 20);
  EXPECT_GT(results[0].details["mean_bytes"].get<double>(), 40);
  // Stop texts end an answer before them.
  for (EvaluationRow& row : rows) row.until = {" "};
  const Evaluation cut = measured({{"kind", "length"}, {"max_tokens", 20}}, *model)[0];
  EXPECT_LT(cut.details["mean_bytes"].get<double>(), 12);
  EXPECT_EQ(cut.details["cut_share"], 0);
}

TEST_F(Measuring, KlIsZeroToItselfAndAsComputedToAnother) {
  const TemporaryFolder folder;
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  const Evaluation self = measured({{"kind", "kl"}, {"reference", smollm2_path().string()}}, *model)[0];
  EXPECT_NEAR(self.value, 0, 1e-9);
  EXPECT_EQ(self.details["same_most_likely"], 1);
  const auto other = changed_model(
      folder, "other.gguf", [](GgufWriter&) {},
      [](const std::string& name, at::Tensor& tensor) {
        if (name == "output_norm.weight") tensor *= 0.9;  // all logits but for rounding
      });
  const Evaluation found = measured({{"kind", "kl"}, {"reference", other.string()}}, *model)[0];
  // By hand from both models' logits.
  const auto reference = ServedModel::open(other, {.exact = true});
  double sum = 0, tokens = 0;
  for (const EvaluationRow& row : rows) {
    const at::Tensor p = at::log_softmax(reference->logits(row.example.ids).to(at::kDouble), 1),
                     q = at::log_softmax(model->logits(row.example.ids).to(at::kDouble), 1);
    const at::Tensor kl = (p.exp() * (p - q)).sum(1);
    for (size_t t = 1; t < row.example.ids.size(); ++t) {
      if (!row.example.trained[t]) continue;
      sum += kl[static_cast<int64_t>(t) - 1].item<double>();
      ++tokens;
    }
  }
  EXPECT_NEAR(found.value / (sum / tokens), 1, 0.02);
  EXPECT_EQ(found.details["tokens"], tokens);
  EXPECT_GT(found.standard_error, 0);
  EXPECT_GT(found.value, 1e-4);
}

TEST_F(Measuring, AReferenceWithAnotherVocabularyIsRefusedByName) {
  const TemporaryFolder folder;
  const auto other = changed_model(
      folder, "other.gguf",
      [](GgufWriter& writer) {
        const std::string key = "tokenizer.ggml.tokens";
        std::vector<std::string> tokens = GgufFile::open(smollm2_path())->texts(key);
        tokens[3] = "<another>";  // one of the special ones
        writer.set_texts(key, tokens);
      },
      [](const std::string&, at::Tensor&) {});
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  expect_error(Exit::bad_input, {"other.gguf", "another vocabulary", "bits_per_byte"}, [&] {
    measured({{"kind", "kl"}, {"reference", other.string()}}, *model);
  });
}

TEST_F(Measuring, AModelWhoseLogitsAreNoNumbersIsRefused) {
  const TemporaryFolder folder;
  const auto broken = changed_model(
      folder, "broken.gguf", [](GgufWriter&) {},
      [](const std::string& name, at::Tensor& tensor) {
        if (name == "output_norm.weight") tensor.fill_(60000);  // overflows on the way to the logits
        if (name == "token_embd.weight") tensor *= 60000 / tensor.abs().max();
      });
  const auto model = ServedModel::open(broken, {.exact = true});
  const at::Tensor logits = model->logits(rows[0].example.ids);
  if (at::isfinite(logits).all().item<bool>()) GTEST_SKIP() << "this build of llama.cpp does not overflow here";
  for (const Json& keys : {Json{{"kind", "perplexity"}}, Json{{"kind", "kl"}, {"reference", smollm2_path().string()}}})
    expect_error(Exit::bad_input, {"not finite"}, [&] { measured(keys, *model); });
}

TEST(SpeedEstimate, RatesHaveTheErrorOfTheirMeanTime) {
  const std::vector<double> seconds = {1, 2, 3};
  EXPECT_NEAR(mean_of(seconds).standard_error, 1 / std::sqrt(3.0), 1e-12);
  const Rate rate = rate_of(seconds, 10);
  EXPECT_EQ(rate.value, 5);
  EXPECT_NEAR(rate.standard_error, 10 / 4.0 / std::sqrt(3.0), 1e-12);
}

TEST_F(Measuring, SpeedAndCostAreMeasured) {
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  const Evaluation latency = measured({{"kind", "latency"}, {"runs", 2}}, *model)[0];
  EXPECT_GT(latency.value, 1);
  EXPECT_EQ(latency.n, 2);
  EXPECT_EQ(latency.unit, "tokens/s");
  EXPECT_GT(latency.details["first_token_seconds"].get<double>(), 0);
  EXPECT_GT(latency.details["memory_bytes"].get<int64_t>(), 50'000'000);
  const Json prices = {{{"name", "here"}, {"machine_hour", 0.36}},
                       {{"name", "hosted"}, {"input", 2.0}, {"output", 8.0}}};
  const Evaluation cost = measured(
      {{"kind", "cost"}, {"prices", prices}, {"output_share", 0.5}, {"currency", "EUR"}, {"runs", 2}}, *model)[0];
  EXPECT_EQ(cost.unit, "EUR per million tokens");
  const Json& table = cost.details["prices"];
  EXPECT_EQ(table[1]["both"], 5.0);
  EXPECT_NEAR(cost.value, (table[0]["input"].get<double>() + table[0]["output"].get<double>()) / 2, 1e-9);
  // 0.36 an hour is 1e-4 a second: a million tokens at v a second cost 100 / v. Two measurements on a busy machine
  // differ.
  EXPECT_NEAR(std::log(table[0]["output"].get<double>() * latency.value / 100), 0, 1.5);
  // Without a machine's price nothing is measured.
  const Evaluation listed =
      measured({{"kind", "cost"}, {"prices", {{{"name", "hosted"}, {"input", 2.0}, {"output", 8.0}}}}}, *model)[0];
  EXPECT_EQ(listed.value, 3.5);
  EXPECT_EQ(listed.standard_error, 0);
  EXPECT_LT(listed.seconds, 0.1);
}

TEST_F(Measuring, ContextIsSweptByLengthAndDepth) {
  const auto model = ServedModel::open(smollm2_path(), {.exact = true});
  expect_error(Exit::bad_input, {"context", "the rows have"}, [&] { measured({{"kind", "context"}}, *model); });
  const std::vector<EvaluationRow> few = rows;
  while (rows.size() < 24) rows.insert(rows.end(), few.begin(), few.end());
  const Evaluation found =
      measured({{"kind", "context"}, {"lengths", {128, 256}}, {"depths", {0, 0.5, 1}}, {"texts", 1}}, *model)[0];
  const Json& needles = found.details["needles"];
  ASSERT_EQ(needles.size(), 6U);
  double mean = 0;
  for (const Json& cell : needles) mean += cell["found"].get<double>() / 6;
  EXPECT_NEAR(found.value, mean, 1e-12);
  EXPECT_GT(found.value, 0.3) << "the model copies a number that stands before the question";
  EXPECT_EQ(found.n, 1) << "one text, whatever the number of cells";
  const Json& positions = found.details["positions"];
  ASSERT_EQ(positions.size(), 3U);
  EXPECT_EQ(positions[0]["from"], 0);
  EXPECT_EQ(positions[2]["to"], 256);
  // The text repeats: what has been read before is less surprising.
  EXPECT_LT(positions[2]["perplexity"].get<double>(), positions[0]["perplexity"].get<double>());
}

/// Answers with the number in the prompt where `knows` says so.
class Finder : public ServedModel {
 public:
  explicit Finder(std::function<bool(const std::string& prompt)> knows) : knows_(std::move(knows)) {}
  int64_t vocab() const override { return 259; }
  const llama_model* model() const override { return nullptr; }
  at::Tensor logits(std::span<const int32_t> ids, std::span<const int64_t>) override {
    return at::zeros({std::ssize(ids), vocab()});
  }
  void logits(const std::vector<std::vector<int32_t>>& documents, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    for (size_t i = 0; i < documents.size(); ++i) each(i, at::zeros({std::ssize(wanted[i]), vocab()}));
  }
  void run(std::span<const ServedRequest> requests, const std::function<void(size_t, const at::Tensor&)>&,
           const std::function<void(size_t, const Generated&)>& generated) override {
    const FakeTokenizer tokenizer;
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::string prompt = tokenizer.decode(requests[i].ids, false);
      const size_t number = prompt.find("Retort is ") + 10;
      generated(i, {.ids = tokenizer.encode(knows_(prompt) ? prompt.substr(number, 5) : "no", false, false)});
    }
  }
  void read(const std::vector<std::vector<int32_t>>&,
            const std::function<void(size_t, const at::Tensor&, const at::Tensor&)>&) override {}
  Generated generate(std::span<const int32_t>, int64_t, double, uint64_t,
                     const std::function<void(int32_t)>&) override {
    return {};
  }
  int64_t memory_bytes() const override { return 0; }

 private:
  std::function<bool(const std::string&)> knows_;
};

struct ByteContext : testing::Test {
  const FakeTokenizer tokenizer;
  Evaluation measured(const Json& keys, const std::string& text, Finder& model) const {
    EvaluationRow row;
    row.example.ids = tokenizer.encode(text, false, false);
    return evaluate(std::vector{evaluator_from(keys)}, std::vector{row}, model, tokenizer, "x").front();
  }
};

TEST_F(ByteContext, ALengthThatHoldsNoTextIsRefused) {
  Finder model([](const std::string&) { return true; });
  expect_error(Exit::usage, {"lengths: 128 tokens", "more than"}, [&] {
    measured({{"kind", "context"}, {"lengths", {128}}}, std::string(4096, 'x'), model);
  });
}

TEST_F(ByteContext, TheCellsOfATextAreOneRow) {
  // Four texts of 300 bytes: all cells of the first two are found, none of the others.
  const std::string text = std::string(600, 'a') + std::string(600, 'b');
  Finder model([](const std::string& prompt) { return prompt.find("aaa") != std::string::npos; });
  const Evaluation found =
      measured({{"kind", "context"}, {"lengths", {280, 300}}, {"depths", {0, 0.5, 1}}, {"texts", 4}}, text, model);
  EXPECT_EQ(found.value, 0.5);
  EXPECT_EQ(found.n, 4);
  // A share of four texts, sqrt(p (1 - p) / (n - 1)), and not of 24 cells.
  EXPECT_NEAR(found.standard_error, std::sqrt(0.25 / 3), 1e-12);
  for (const Json& cell : found.details["needles"]) {
    EXPECT_EQ(cell["found"], 0.5);
    EXPECT_NEAR(cell["found_stderr"].get<double>(), std::sqrt(0.25 / 3), 1e-12);
  }
}

}  // namespace
}  // namespace retort
