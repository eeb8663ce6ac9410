// Tasks in lm-evaluation-harness' form: agreement with it (golden/make_tasks.py), and what is refused.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include <re2/re2.h>

#include "core/files.h"
#include "core/json.h"
#include "models/served.h"
#include "monitor/harness_task.h"
#include "tests/core/support.h"
#include "tests/monitor/f32_model.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(RETORT_GOLDEN "/tasks.json");
  return json;
}

HarnessTask task(const std::string& name) { return load_harness_task(RETORT_GOLDEN "/tasks/" + name + ".yaml"); }

TEST(HarnessTask, PromptsAreTheHarness) {
  const HarnessTask choices = task("choices"), answers = task("answers");
  ASSERT_EQ(choices.documents.size(), golden()["computing_choices"]["rows"].size());
  for (size_t i = 0; i < choices.documents.size(); ++i)
    EXPECT_EQ(choices.documents[i].prompt, golden()["computing_choices"]["rows"][i]["prompt"]);
  ASSERT_EQ(answers.documents.size(), golden()["computing_answers"]["rows"].size());
  for (size_t i = 0; i < answers.documents.size(); ++i)
    EXPECT_EQ(answers.documents[i].prompt, golden()["computing_answers"]["rows"][i]["prompt"]);
  EXPECT_EQ(load_harness_task(RETORT_GOLDEN "/tasks/choices.yaml", 3).documents.size(), 3U);
}

TEST(HarnessTask, ScoresAreTheHarness) {
  const auto tokenizer = Tokenizer::open(smollm2_path());
  const auto model = ServedModel::open(f32_model(), {.exact = true});
  const Predictor predictor = predictor_of(*model, *tokenizer);
  const HarnessTask choices = task("choices"), answers = task("answers");
  const std::vector<EvaluationRow> rows = harness_rows(choices, *tokenizer);
  std::vector<Question> questions;
  for (const EvaluationRow& row : rows) questions.push_back({&row, {.choices = true, .every_choice = true}});
  predictor(questions, [&](size_t i, const Reply& reply) {
    const auto expected = golden()["computing_choices"]["rows"][i]["log_likelihoods"].get<std::vector<double>>();
    ASSERT_EQ(reply.choices.size(), expected.size());
    for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(reply.choices[c], expected[c], 2e-3) << i << " " << c;
  });
  const auto expect_metrics = [](const std::vector<Evaluation>& found, const Json& metrics, const std::string& suffix) {
    for (const Evaluation& evaluation : found) {
      const size_t comma = evaluation.name.find(',');
      const std::string name = evaluation.name.substr(0, comma),
                        pipeline = comma == std::string::npos ? suffix : evaluation.name.substr(comma + 1);
      EXPECT_NEAR(evaluation.value, metrics[name + "," + pipeline].get<double>(), 1e-9) << evaluation.name;
      EXPECT_NEAR(evaluation.standard_error, metrics[name + "_stderr," + pipeline].get<double>(), 1e-9)
          << evaluation.name;
    }
  };
  const std::vector<Evaluation> of_choices = evaluate_harness_task(choices, rows, predictor);
  ASSERT_EQ(of_choices.size(), 3U);
  EXPECT_EQ(of_choices[0].data, "computing_choices");
  EXPECT_EQ(of_choices[1].name, "acc_norm");
  expect_metrics(of_choices, golden()["computing_choices"]["metrics"], "none");
  const std::vector<Evaluation> of_answers =
      evaluate_harness_task(answers, harness_rows(answers, *tokenizer), predictor);
  ASSERT_EQ(of_answers.size(), 2U);
  EXPECT_EQ(of_answers[1].name, "exact_match,words");
  expect_metrics(of_answers, golden()["computing_answers"]["metrics"], "none");
  // The scores would not differ if both pipelines were one.
  EXPECT_NE(of_answers[0].value, of_answers[1].value);
}

TEST(HarnessTask, AnswersAreTheHarness) {
  const auto tokenizer = Tokenizer::open(smollm2_path());
  const auto model = ServedModel::open(f32_model(), {.exact = true});
  const HarnessTask answers = task("answers");
  const std::vector<EvaluationRow> rows = harness_rows(answers, *tokenizer);
  std::vector<Question> questions;
  for (const EvaluationRow& row : rows) questions.push_back({&row, {.answer = true, .max_tokens = answers.max_tokens}});
  predictor_of(*model, *tokenizer)(questions, [&](size_t i, const Reply& reply) {
    const Json& expected = golden()["computing_answers"]["rows"][i];
    EXPECT_EQ(reply.generated, expected["answer"]);
    for (const HarnessPipeline& pipeline : answers.pipelines)
      EXPECT_EQ(filtered(pipeline, reply.generated), expected["filtered"][pipeline.name]) << pipeline.name;
  });
}

TEST(HarnessTask, FiltersWorkAsPythonsFindall) {
  const auto by = [](const std::string& pattern, int64_t select, const std::string& text) {
    HarnessPipeline pipeline{"p", {{"regex", std::make_shared<re2::RE2>(pattern), select, "none"}}};
    return filtered(pipeline, text);
  };
  EXPECT_EQ(by(R"(\d+)", 0, "a 12 b 34 c 56"), "12");
  EXPECT_EQ(by(R"(\d+)", -1, "a 12 b 34 c 56"), "56");
  EXPECT_EQ(by(R"(\d+)", 7, "a 12"), "none");
  EXPECT_EQ(by(R"(\d+)", 0, "nothing"), "none");
  EXPECT_EQ(by(R"(is (\w+))", 0, "it is  so"), "none");
  EXPECT_EQ(by(R"(is\s+(\w+))", 0, "it is  so"), "so");
  EXPECT_EQ(by(R"((a)|(b))", 1, "a b"), "b");
  EXPECT_EQ(by("x*", 0, "abc"), "");
  const HarnessPipeline two{"p", {{"remove_whitespace"}, {"lowercase"}, {"take_first"}}};
  EXPECT_EQ(filtered(two, " \n ÉA B "), "éa b ");
}

struct HarnessTaskFile : testing::Test {
  TemporaryFolder folder;
  std::string data = R"({"q": "1 + 1", "a": "2", "c": ["2", "3"], "i": 0})"
                     "\n";
  HarnessTask load(const std::string& yaml) {
    write_atomic(folder / "rows.jsonl", data);
    write_atomic(folder / "task.yaml", yaml);
    return load_harness_task(folder / "task.yaml");
  }
  static std::string with(const std::string& more, const std::string& metric = "exact_match") {
    return "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"
           "doc_to_text: q\ndoc_to_target: a\nmetric_list: [{metric: " +
           metric + "}]\n" + more;
  }
};

TEST_F(HarnessTaskFile, DefaultsAreTheHarness) {
  const HarnessTask plain = load(with(""));
  EXPECT_EQ(plain.until, std::vector<std::string>{"\n\n"});
  EXPECT_EQ(plain.max_tokens, 256);
  EXPECT_EQ(plain.target_delimiter, " ");
  EXPECT_EQ(plain.documents[0].prompt, "1 + 1");
  EXPECT_EQ(plain.documents[0].target, "2");
  // White space around blocks stays, as the harness' Jinja leaves it.
  const HarnessTask blocks = load(
      "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ndoc_to_target: a\n"
      "metric_list: [{metric: f1}]\ndoc_to_text: \"A:  {% if q %}\\n{{ q }}\\n  {% endif %}\\nB {# c #}\\n\"\n");
  EXPECT_EQ(blocks.documents[0].prompt, "A:  \n1 + 1\n  \nB \n");
}

TEST_F(HarnessTaskFile, ChoicesComeFromAFieldAListOrAnExpression) {
  for (const char* choices : {"c", "[\"2\", \"3\"]", "\"{{ c }}\"", "\"{{ [a, '3'] }}\""}) {
    const HarnessTask found =
        load(with(std::string("output_type: multiple_choice\ndoc_to_choice: ") + choices + "\n", "acc"));
    EXPECT_EQ(found.documents[0].choices, (std::vector<std::string>{"2", "3"})) << choices;
  }
}

TEST_F(HarnessTaskFile, WhatIsNotReadIsRefusedByFileAndLine) {
  const auto refused = [&](const std::vector<std::string>& parts, const std::string& yaml, Exit exit = Exit::usage) {
    expect_error(exit, parts, [&] { load(yaml); });
  };
  refused({"task.yaml:7", "doc_to_txt", "did you mean doc_to_text"}, with("doc_to_txt: q\n"));
  refused({"task.yaml:7", "process_docs", "Python"}, with("process_docs: x\n"));
  refused({"task.yaml:7", "loglikelihood_rolling", "multiple_choice"}, with("output_type: loglikelihood_rolling\n"));
  refused({"sampler"}, with("num_fewshot: 2\nfewshot_split: test\n"));
  refused({"metric", "acc_nrom", "did you mean acc_norm"}, with("", "acc_nrom"));
  refused({"acc", "generate_until"}, with("", "acc"));
  refused({"task.yaml:7", "temperature"}, with("generation_kwargs: {temperature: 0.7}\n"));
  refused({"task.yaml:7", "look-around"},
          with("filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(?=a)'}]}]\n"));
  refused({"doc_to_choice"}, with("output_type: multiple_choice\n", "acc"));
  refused({"has no split \"dev\""}, with("test_split: dev\n"));
  refused({"dataset_path", "json, csv"},
          "task: t\ndataset_path: openai/gsm8k\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ndoc_to_text: q\n"
          "doc_to_target: a\nmetric_list: [{metric: f1}]\n");
  refused({"rows.jsonl:1", "doc_to_choice", "\"q\""}, with("output_type: multiple_choice\ndoc_to_choice: q\n", "acc"),
          Exit::bad_input);
  refused({"rows.jsonl:1", "doc_to_target", "choice 2, the row has 2"},
          with("output_type: multiple_choice\ndoc_to_choice: [x, y]\ndescription: ''\n", "acc"), Exit::bad_input);
  refused({"rows.jsonl:1", "description", "field \"nothing\"", "q, a, c, i"}, with("description: '{{ nothing }}'\n"),
          Exit::bad_input);
  data = "";
  refused({"no rows"}, with(""), Exit::bad_input);
  data = "{\"q\": 1";
  refused({"rows.jsonl:1"}, with(""), Exit::bad_input);
  write_atomic(folder / "task.yaml", "task: [");
  expect_error(Exit::usage, {"task.yaml"}, [&] { load_harness_task(folder / "task.yaml"); });
}

}  // namespace
}  // namespace retort
