// retort eval as a shell runs it: two models on the same rows, tasks, and what cannot be compared.
#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/json.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// Two models of random weights.
struct EvalCommand : testing::Test {
  TemporaryFolder folder;
  std::string one = folder / "one", two = folder / "two", rows = folder / "rows.jsonl";
  const std::vector<std::string> lines = {
      R"({"prompt": "What is a modem?", "completion": "A device that turns bits into tones."})",
      R"({"prompt": "What is a byte?", "completion": "Eight bits."})",
      R"({"prompt": "What is a compiler?", "completion": "A program that translates source code."})",
      R"({"prompt": "What is a bug?", "completion": "An error."})"};

  void SetUp() override {
    write_tiny_folder(one, tiny_folder_config(1), at::kFloat);
    write_tiny_folder(two, tiny_folder_config(2), at::kFloat);
    write_rows(lines);
  }
  void write_rows(const std::vector<std::string>& of) const {
    write_atomic(rows, fmt::format("{}\n", fmt::join(of, "\n")));
  }
  static Json evaluated(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "eval");
    arguments.push_back("--json");
    const ProcessResult result = retort(arguments);
    EXPECT_EQ(result.status, 0) << result.errors;
    return result.status == 0 ? parse_json(result.output, "eval") : Json();
  }
};

TEST_F(EvalCommand, ADifferencesErrorIsThatOfTheRowsDifferences) {
  const Json json = evaluated({one, "--against", two, "--data", rows});
  const double mine = json["evaluate"][0]["value"], other = json["against"]["evaluate"][0]["value"];
  const Json& apart = json["differences"][0];
  EXPECT_EQ(apart["name"], "perplexity");
  EXPECT_NEAR(apart["value"].get<double>(), mine - other, 1e-9 * mine);
  // By hand, from each row alone: perplexity is exp of a ratio of sums, so a row's part of it is exp(ratio) times its
  // residual over all tokens.
  double tokens = 0, squares = 0;
  std::vector<std::pair<double, double>> nats;
  std::vector<double> sizes;
  for (const std::string& line : lines) {
    write_rows({line});
    const Json alone = evaluated({one, "--against", two, "--data", rows});
    sizes.push_back(alone["evaluate"][0]["tokens"]);
    nats.emplace_back(sizes.back() * std::log(alone["evaluate"][0]["value"].get<double>()),
                      sizes.back() * std::log(alone["against"]["evaluate"][0]["value"].get<double>()));
    tokens += sizes.back();
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    const double part = mine * (nats[i].first - std::log(mine) * sizes[i]) / tokens,
                 part_of_other = other * (nats[i].second - std::log(other) * sizes[i]) / tokens;
    squares += std::pow(part - part_of_other, 2);
  }
  EXPECT_NEAR(apart["stderr"].get<double>() / std::sqrt(squares * 4 / 3), 1, 1e-3);
  EXPECT_NE(apart["stderr"].get<double>(), std::hypot(json["evaluate"][0]["stderr"].get<double>(),
                                                      json["against"]["evaluate"][0]["stderr"].get<double>()));
}

TEST_F(EvalCommand, AModelIsNoBetterThanItself) {
  const Json json = evaluated({one, "--against", one, "--data", rows, "--kind", "bits_per_byte"});
  EXPECT_EQ(json["differences"][0]["value"], 0);
  EXPECT_EQ(json["differences"][0]["stderr"], 0);
  const ProcessResult table = retort({"eval", one, "--against", two, "--data", rows, "--kind", "bits_per_byte"});
  for (const char* part : {"against", "difference", "bits_per_byte", "±"})
    EXPECT_NE(table.output.find(part), std::string::npos) << table.output;
}

TEST_F(EvalCommand, ATaskNeedsNoOtherRows) {
  const std::string task = RETORT_GOLDEN "/tasks/choices.yaml";
  const Json json = evaluated({one, "--against", two, "--task", task, "--limit", "3"});
  const std::vector<std::string> names = {"acc", "acc_norm", "acc_bytes"};
  ASSERT_EQ(json["evaluate"].size(), names.size()) << json;
  for (size_t i = 0; i < names.size(); ++i) {
    const Json& found = json["evaluate"][i];
    EXPECT_EQ(found["name"], names[i]) << found;
    EXPECT_EQ(found["data"], "computing_choices");
    EXPECT_EQ(found["n"], 3);
    EXPECT_EQ(json["differences"][i]["name"], found["name"]);
    EXPECT_NEAR(json["differences"][i]["value"].get<double>(),
                found["value"].get<double>() - json["against"]["evaluate"][i]["value"].get<double>(), 1e-9);
  }
  // Beside evaluators of rows, and in a recipe.
  const Json both = evaluated({one, "--data", rows, "--kind", "bits_per_byte", "--task", task});
  EXPECT_EQ(both["evaluate"].size(), 1 + names.size());
  const std::string recipe = folder / "recipe.yaml";
  write_atomic(recipe, fmt::format("name: r\nmodel: {{path: {0}}}\ndata: {{train: [{{kind: jsonl, path: {1}}}], "
                                   "validation: [{{kind: jsonl, path: {1}}}]}}\n"
                                   "evaluate: [{{kind: task, path: {2}, limit: 3}}]\n",
                                   one, rows, task));
  EXPECT_EQ(evaluated({one, "--recipe", recipe})["evaluate"][0]["value"], json["evaluate"][0]["value"]);
  EXPECT_EQ(retort({"eval", one}).status, 64);
  EXPECT_EQ(retort({"eval", one, "--task", folder / "none.yaml"}).status, 69);
}

TEST_F(EvalCommand, ModelsThatDoNotSeeTheSameRowsAreNotCompared) {
  // The other's template is longer, so that a row of the limit's length is dropped.
  Json config = read_json(fs::path(two) / "tokenizer_config.json");
  config["chat_template"] = "0 1 2 3 4 5 6 7 8 9 " + config["chat_template"].get<std::string>();
  write_json(fs::path(two) / "tokenizer_config.json", config);
  const std::string recipe = folder / "recipe.yaml";
  const auto compared = [&](int length) {
    write_atomic(recipe, fmt::format("name: r\nmodel: {{path: {0}}}\ndata: {{max_length: {2}, truncation: drop, train: "
                                     "[{{kind: jsonl, path: {1}}}], validation: [{{kind: jsonl, path: {1}}}]}}\n"
                                     "evaluate: [{{kind: perplexity}}]\n",
                                     one, rows, length));
    return retort({"eval", one, "--against", two, "--recipe", recipe});
  };
  EXPECT_EQ(compared(120).status, 0);
  const ProcessResult refused = compared(40);
  EXPECT_EQ(refused.status, 65) << refused.output;
  for (const char* part : {"do not see the same rows", "rows.jsonl:", "data.max_length"})
    EXPECT_NE(refused.errors.find(part), std::string::npos) << refused.errors;
}

}  // namespace
}  // namespace retort
