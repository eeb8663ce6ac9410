// retort prune as a shell sees it: a student that every command reads.
#include <gtest/gtest.h>

#include <fstream>

#include "core/files.h"
#include "core/json.h"
#include "models/checkpoint.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Prune : testing::Test {
  TemporaryFolder folder;
  std::string teacher = folder / "teacher", student = folder / "student", recipe = folder / "prune.yaml";

  void SetUp() override {
    // Layer 2 adds nothing: it costs nothing to lose.
    write_tiny_folder(teacher, tiny_folder_config(4), at::kFloat, {2});
    const std::string rows = folder / "rows.jsonl";
    std::ofstream lines(rows);
    for (int i = 0; i < 12; ++i)
      lines << R"({"prompt": "What is the number )" << i << R"(?", "completion": "The number is )" << i << ".\"}\n";
    lines.close();
    write_recipe("layers: {count: 2, by: kl}");
  }
  void write_recipe(const std::string& prune) {
    const std::string data = "[{kind: jsonl, path: " + (folder / "rows.jsonl").string() + "}]";
    write_atomic(recipe, "name: tiny\nmodel: {path: " + teacher + "}\ndata: {max_length: 64, train: " + data +
                             ", validation: " + data + "}\nprune: {" + prune + "}\noutput: " + student + "\n");
  }
  ProcessResult prune(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"prune", recipe, "--quiet", "--json"});
    return retort(more);
  }
  void expect_refusal(int status, const std::string& text, const std::vector<std::string>& more = {}) {
    const ProcessResult result = prune(more);
    EXPECT_EQ(result.status, status) << result.errors;
    EXPECT_NE(result.errors.find(text), std::string::npos) << result.errors;
    EXPECT_FALSE(fs::exists(student));
  }
};

TEST_F(Prune, TheLayerThatAddsNothingGoesFirst) {
  const ProcessResult result = prune({"prune.layers.count=3"});
  ASSERT_EQ(result.status, 0) << result.errors;
  const Json report = parse_json(result.output, "report");
  EXPECT_EQ(report["layers"]["kept"], Json({0, 1, 3}));
  ASSERT_EQ(report["layers"]["steps"].size(), 1U);
  const Json& step = report["layers"]["steps"][0];
  EXPECT_EQ(step["removed"], 2);
  ASSERT_EQ(step["tried"].size(), 4U);
  for (const Json& tried : step["tried"]) {
    if (tried["layer"] == 2)
      EXPECT_LT(tried["kl"].get<double>(), 1e-6);
    else
      EXPECT_GT(tried["kl"].get<double>(), 0.01);
  }
  const Json& validation = report["validation"];
  EXPECT_LT(validation["after"]["kl"].get<double>(), 1e-6);
  EXPECT_EQ(validation["after"]["top1"], 1.0);
  EXPECT_NEAR(validation["after"]["perplexity"].get<double>(), validation["before"]["perplexity"].get<double>(), 1e-2);
  EXPECT_LT(report["parameters"]["after"].get<int64_t>(), report["parameters"]["before"].get<int64_t>());
  EXPECT_EQ(read_json(fs::path(student) / "prune.json")["layers"], report["layers"]);
}

TEST_F(Prune, EveryCommandReadsTheStudent) {
  write_recipe("layers: {count: 2}, mlp: {size: 70}, vocabulary: {}");
  const ProcessResult made = prune();
  ASSERT_EQ(made.status, 0) << made.errors;
  const Json report = parse_json(made.output, "report");
  EXPECT_EQ(report["layers"]["kept"], Json({0, 3}));
  EXPECT_EQ(report["mlp"]["kept"], 64);
  EXPECT_LT(report["vocabulary"]["kept"].get<int64_t>(), 512);
  const ModelConfig config = Checkpoint::open(student)->config();
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.ffn, 64);
  EXPECT_EQ(config.vocab, report["vocabulary"]["kept"].get<int64_t>());
  // The rows that the vocabulary was cut for keep their tokens, so all of them were compared.
  const Json& validation = report["validation"];
  EXPECT_EQ(validation["after"]["tokens"], validation["before"]["tokens"]);
  EXPECT_GT(validation["after"]["compared_tokens"].get<int64_t>(), validation["after"]["tokens"].get<int64_t>());

  const std::string rows = folder / "rows.jsonl", out = folder / "out";
  const std::vector<std::vector<std::string>> commands = {
      {"generate", "--model", student, "--prompt", "What is the number 3?", "--max-tokens", "4"},
      {"eval", "--model", student, "--data", rows, "--limit", "2", "--json"},
      {"inspect", student},
      {"logits", "--model", student, "--ids", "1,2,3", "--out", out + ".safetensors"},
      {"export", "--model", student, "--type", "F16", "--out", out + ".gguf"},
      {"export", "--model", student, "--format", "safetensors", "--type", "BF16", "--out", out + "-hf"},
      {"quantize", student, "--type", "nf4", "--out", out + "-nf4"},
      {"generate", "--model", out + ".gguf", "--prompt", "What is the number 3?", "--max-tokens", "4"}};
  for (const auto& command : commands) {
    const ProcessResult result = retort(command);
    EXPECT_EQ(result.status, 0) << command[0] << ": " << result.errors;
  }
  // llama.cpp's file of the folder says what llama.cpp says of the exported file's.
  EXPECT_EQ(retort(commands.front()).output, retort(commands.back()).output);
}

TEST_F(Prune, WhatCannotBeDoneIsRefusedBeforeAnythingIsMade) {
  expect_refusal(64, "the model has 4", {"prune.layers.count=4"});
  expect_refusal(64, "there is no layer 9", {"prune.layers={keep: [0, 9]}"});
  expect_refusal(64, "layers must ascend", {"prune.layers={keep: [1, 0]}"});
  expect_refusal(64, "either keep", {"prune.layers={}"});
  expect_refusal(64, "nothing is cut", {"prune={}"});
  expect_refusal(64, "MLPs have 96", {"prune.mlp={size: 96}"});
  expect_refusal(64, "below the multiple", {"prune.mlp={size: 31}"});
  expect_refusal(64, "did you mean layers", {"prune={layer: {count: 2}}"});
  expect_refusal(64, "data.validation", {"~data.validation"});
  expect_refusal(65, "config.json", {"model.path=" + folder.path().string()});
  write_atomic(fs::path(teacher) / "model.safetensors", "damaged");
  expect_refusal(65, "model.safetensors");
}

TEST_F(Prune, OnlyAnEarlierStudentIsReplaced) {
  const ProcessResult onto = prune({"output=" + teacher});
  EXPECT_EQ(onto.status, 64);
  EXPECT_NE(onto.errors.find("is no student"), std::string::npos) << onto.errors;
  EXPECT_TRUE(fs::exists(fs::path(teacher) / "model.safetensors"));
  ASSERT_EQ(prune({"prune.layers={count: 3}"}).status, 0);
  ASSERT_EQ(prune({"prune.layers={keep: [0, 1]}"}).status, 0);
  EXPECT_EQ(Checkpoint::open(student)->config().layers, 2);
}

}  // namespace
}  // namespace retort
