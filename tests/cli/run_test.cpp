// The whole main path on the real model, as a shell sees it: a run, its report, its refusals, its plan.
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "models/checkpoint.h"
#include "report/format.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// The quickstart's recipe with few rows and two steps.
struct SmallRun : testing::Test {
  TemporaryFolder folder;
  std::vector<std::string> overrides = {
      "output_dir=" + (folder / "runs").string(),
      "train.max_steps=2",
      "data.max_length=160",
      "data.truncation=drop",
      "data.train.0.limit=24",
      "data.validation.0.limit=6",
      "export.gate.rows=4",
      "export.files=[{format: peft}, {format: gguf_adapter}, {format: gguf, type: Q8_0}, {format: gguf, "
      "merge: adapter}]",
      "evaluate=[{kind: perplexity}]"};
  std::vector<std::string> command(const std::string& name, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {name, RETORT_SOURCE_DIR "/configs/quickstart.yaml"};
    arguments.insert(arguments.end(), overrides.begin(), overrides.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  fs::path latest() const { return folder / "runs/foldoc-categories/latest"; }
};

/// "/export/*/gate/kl_mean": every key of a report, without those that follow the recipe or the machine.
std::set<std::string> keys_of(const Json& value, const std::string& at = "") {
  std::set<std::string> keys;
  for (const char* free : {"/adapter", "/environment", "/model", "/train/options", "/data/ledger/dropped"})
    if (at == free) return {at};
  for (const auto& [key, item] : value.items()) {
    if (!item.is_structured()) keys.insert(value.is_array() ? at : at + "/" + key);
    if (item.is_structured()) keys.merge(keys_of(item, at + "/" + (value.is_array() ? "*" : key)));
  }
  return keys;
}

TEST_F(SmallRun, LeavesEverythingThatTheDesignNames) {
  const std::vector<std::string> more = {
      "data.train.0.task.system=Answer in one word.", "data.validation.0.task.system=Answer in one word.",
      "evaluate=[{kind: choice_accuracy, limit: 2}, {kind: perplexity, limit: 2}]",
      "export.files=[{format: peft}, {format: gguf_adapter}, {format: gguf, type: Q8_0}, {format: "
      "gguf, merge: adapter}, {format: safetensors, type: BF16}]"};
  const ProcessResult result = retort(command("run", more));
  ASSERT_EQ(result.status, 0) << result.errors;
  for (const char* file : {"recipe.yaml", "manifest.json", "log.txt", "metrics.jsonl", "report.html", "report.json",
                           "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                           "export/foldoc-categories-Q8_0.gguf", "export/foldoc-categories-adapter.gguf"})
    EXPECT_TRUE(fs::exists(latest() / file)) << file;
  EXPECT_TRUE(fs::is_symlink(latest()));
  // Plain lines, as there is no terminal.
  for (const char* part : {"train: 100 %  2/2", "loss ", " tokens/s  ", " GB"})
    EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
  EXPECT_EQ(result.errors.find('\r'), std::string::npos);

  const Json report = read_json(latest() / "report.json");
  EXPECT_EQ(report["schema"], 1);
  for (const char* key : {"total", "train", "export", "evaluate"}) EXPECT_TRUE(report["seconds"].contains(key)) << key;
  for (const char* key : {"rows", "tokens", "trained_tokens", "truncated", "dropped"})
    EXPECT_TRUE(report["data"]["ledger"].contains(key)) << key;
  for (const char* key : {"steps", "tokens", "trained_tokens", "tokens_per_second", "peak_memory_bytes", "loss_first",
                          "loss_last", "parameters"})
    EXPECT_TRUE(report["train"].contains(key)) << key;
  EXPECT_EQ(report["train"]["steps"], 2);
  EXPECT_EQ(report["train"]["parameters"]["trainable"], 4884480);
  ASSERT_EQ(report["export"].size(), 5U);
  const Json& gguf = report["export"][2];
  EXPECT_EQ(gguf["type"], "Q8_0");
  for (const char* key : {"passed", "kl_mean", "kl_p99", "top1", "delta_perplexity", "rows"})
    EXPECT_TRUE(gguf["gate"].contains(key)) << key;
  for (const char* key : {"prompt_tokens_per_second", "generation_tokens_per_second", "first_token_seconds"})
    EXPECT_GT(gguf["speed"][key].get<double>(), 0) << key;
  std::set<std::string> on;
  for (const Json& entry : report["evaluate"]) on.insert(entry["on"].get<std::string>());
  EXPECT_EQ(on, (std::set<std::string>{"base", "trained", "shipped:Q8_0", "shipped:Q4_1+adapter"}));
  EXPECT_NE(result.output.find("report.html"), std::string::npos) << result.output;
  // The merge alone and the merge rounded to Q8_0, each against the trained model. What the former has is the head,
  // which no adapter changes and llama.cpp multiplies in the base's blocks.
  EXPECT_LT(gguf["f32_merge"]["kl_mean"].get<double>(), 0.003);
  EXPECT_GT(gguf["gate"]["kl_mean"].get<double>(), gguf["f32_merge"]["kl_mean"].get<double>());

  // The other way to ship: the base's own bytes and the adapter, nearer to the trained model than any rounding.
  const Json& beside = report["export"][3];
  EXPECT_EQ(beside["type"], "Q4_1");
  EXPECT_EQ(beside["path"], "export/foldoc-categories-base-Q4_1.gguf");
  EXPECT_EQ(beside["sha256"], sha256_file(report["model"]["path"].get<std::string>()));
  EXPECT_EQ(beside["adapter_sha256"], sha256_file(latest() / beside["adapter"].get<std::string>()));
  EXPECT_EQ(beside["bytes"].get<uintmax_t>(), fs::file_size(latest() / beside["path"].get<std::string>()) +
                                                  fs::file_size(latest() / beside["adapter"].get<std::string>()));
  EXPECT_TRUE(beside["gate"]["passed"].get<bool>());
  EXPECT_GT(beside["speed"]["generation_tokens_per_second"].get<double>(), 0);

  // A folder has no gate: what was written was read back bit for bit.
  const Json& folder_of_model = report["export"][4];
  EXPECT_EQ(folder_of_model["path"], "export/foldoc-categories-hf");
  EXPECT_EQ(Checkpoint::open(latest() / "export/foldoc-categories-hf")->tensor("model.norm.weight").type_name(),
            "BF16");

  // What the page's own tests draw is what a run writes.
  const std::set<std::string> written = keys_of(report);
  for (const std::string& key : keys_of(read_json(RETORT_GOLDEN "/report_sample.json"))) {
    const bool empty_here = key == "/export/*/gate/reasons";
    EXPECT_TRUE(empty_here || written.contains(key)) << "no run writes " << key;
  }
  const std::string page = read_text(latest() / "report.html");
  const Json& limits = gguf["gate"]["limits"];
  for (const std::string& part : {"≤ " + show_number(limits["max_kl"]), "≤ " + show_number(limits["max_kl_p99"]),
                                  "≥ " + show_percent(limits["min_top1"]), show_number(gguf["f32_merge"]["kl_mean"]),
                                  std::string("-sys &#39;Answer in one word.&#39;")})
    EXPECT_NE(page.find(part), std::string::npos) << part;

  // The plan of the same run, made by another process.
  const ProcessResult check = retort(command("check", {more[0], more[1], more[2], "--json"}));
  ASSERT_EQ(check.status, 0) << check.errors;
  const Json plan = parse_json(check.output, "check");
  for (const char* key : {"steps", "tokens", "trained_tokens"})
    EXPECT_EQ(plan["plan"][key], report["train"][key]) << key;
  const auto measured = report["train"]["peak_memory_bytes"].get<double>();
  EXPECT_NEAR(plan["predicted_memory_bytes"].get<double>() / measured, 1, 0.2);
  // Time depends on what else the machine does (8 was seen): a slip of units is what this would see.
  const double ratio =
      plan["plan"]["tokens_per_second"].get<double>() / report["train"]["tokens_per_second"].get<double>();
  EXPECT_GT(ratio, 0.02);
  EXPECT_LT(ratio, 50);
}

TEST_F(SmallRun, AboveItsLimitsAFileIsRefusedWith22) {
  const ProcessResult result =
      retort(command("run", {"export.gate.max_kl=1e-9", "export.files=[{format: gguf, type: Q4_0}]", "evaluate=[]",
                             "train.max_steps=1", "export.gate.rows=1"}));
  EXPECT_EQ(result.status, 22) << result.errors;
  EXPECT_TRUE(fs::exists(latest() / "export/foldoc-categories-Q4_0.refused.gguf"));
  EXPECT_FALSE(fs::exists(latest() / "export/foldoc-categories-Q4_0.gguf"));
  EXPECT_FALSE(read_json(latest() / "report.json")["export"][0]["gate"]["passed"].get<bool>());
}

TEST_F(SmallRun, CheckPrintsThePlanAndTrainsNothing) {
  const ProcessResult result = retort(command("check", {"--json"}));
  ASSERT_EQ(result.status, 0) << result.errors;
  const Json check = parse_json(result.output, "check");
  EXPECT_EQ(check["plan"]["steps"], 2);
  EXPECT_EQ(check["parameters"]["trainable"], 4884480);
  EXPECT_EQ(check["targets"].size(), 7U);
  EXPECT_GT(check["predicted_memory_bytes"].get<int64_t>(), 100'000'000);
  const std::string text = retort(command("check")).output;
  for (const char* part : {"target       30 × q_proj [576 × 576], 552960 parameters", "parameters   4884480 trained, ",
                           "plan         2 steps, ", "memory       ", " at the peak; ", "time         about "})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(folder / "runs"));
}

// The same words and the same exit code, whichever command meets the error.
TEST_F(SmallRun, WhatTheRunWouldRefuseCheckRefuses) {
  write_atomic(folder / "endless.jinja", "{% for i in range(1000000000) %}{% endfor %}");
  write_atomic(folder / "imatrix.gguf", "GGUF and no more");
  write_atomic(folder / "file", "");
  const std::vector<std::pair<int, std::vector<std::string>>> faults = {
      {64, {"data.train.0.task.prompt=Which category is {{ definitoin }}?"}},
      {64, {"data.validation.0.task.completion={{ categroy }}"}},
      {65, {"data.chat_template=" + (folder / "endless.jinja").string()}},
      {65, {"export.files=[{format: gguf, type: Q8_0, imatrix: " + (folder / "imatrix.gguf").string() + "}]"}},
      {65, {"data.truncation=left", "data.max_length=48", "evaluate=[{kind: exact_match}]"}},
      {74, {"output_dir=" + (folder / "file").string()}}};
  for (const auto& [status, fault] : faults) {
    const ProcessResult check = retort(command("check", fault)), run = retort(command("run", fault));
    EXPECT_EQ(check.status, status) << fault[0] << "\n" << check.errors;
    EXPECT_EQ(run.status, status) << fault[0] << "\n" << run.errors;
    const auto message = [](const std::string& errors) { return errors.substr(errors.rfind("retort: ")); };
    EXPECT_EQ(message(check.errors), message(run.errors));
  }
  EXPECT_EQ(retort(command("check", {"export.files=[{format: gguf, type: Q9_Z}]"})).status, 64);
  EXPECT_EQ(retort(command("check", {"export.files=[{format: gguf, type: IQ1_S}]"})).status, 64);
  EXPECT_EQ(retort(command("check", {"adapter.target_modules=[no_such_proj]"})).status, 64);
  EXPECT_EQ(retort(command("check", {"adapter.r=200"})).status, 64) << "k_proj has 192 rows";
  EXPECT_EQ(retort(command("check", {"model.path=" + (folder / "none.gguf").string()})).status, 69);
}

/// The names under "Subcommands:" of a command's help.
std::vector<std::string> subcommands_in(const std::string& help) {
  std::vector<std::string> names;
  std::istringstream lines(help.substr(std::min(help.find("\nSubcommands:\n"), help.size())));
  std::string line;
  std::getline(lines, line), std::getline(lines, line);
  while (std::getline(lines, line) && line.starts_with("  "))
    if (line[2] != ' ') names.push_back(line.substr(2, line.find(' ', 2) - 2));
  return names;
}

// An example names the command, and only options that the command has.
void expect_examples(const std::vector<std::string>& command) {
  std::vector<std::string> ask = command;
  ask.push_back("--help");
  const ProcessResult result = retort(ask);
  EXPECT_EQ(result.status, 0) << result.errors;
  const size_t at = result.output.find("\nExamples:\n");
  ASSERT_NE(at, std::string::npos) << result.output;
  const std::string examples = result.output.substr(at);
  EXPECT_NE(examples.find("retort " + command[0]), std::string::npos) << examples;
  std::string known = result.output.substr(0, at);
  for (const std::string& sub : subcommands_in(result.output)) {
    expect_examples({command[0], sub});
    known += retort({command[0], sub, "--help"}).output;
  }
  if (command.size() > 1) return;  // shares its parent's
  std::istringstream words(examples);
  for (std::string word; words >> word;) {
    if (word.starts_with("--")) {
      EXPECT_NE(known.find("  " + word + " "), std::string::npos) << command[0] << " has no " << word;
    }
  }
}

TEST(Commands, EveryHelpHasAnExample) {
  const std::vector<std::string> names = subcommands_in(retort({"--help"}).output);
  EXPECT_GE(names.size(), 13U);
  for (const char* name : {"run", "check", "pull", "cache", "export", "eval", "logits", "generate", "inspect", "schema",
                           "version", "completion"})
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
  for (const std::string& name : names) expect_examples({name});
}

TEST(Commands, ErrorsNameTheCommandAndWhatIsAllowed) {
  const auto refused = [](const std::vector<std::string>& arguments, const std::vector<std::string>& parts) {
    const ProcessResult result = retort(arguments);
    EXPECT_EQ(result.status, 64) << result.errors;
    EXPECT_EQ(result.output, "");
    for (const std::string& part : parts) EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
  };
  refused({}, {"Usage: retort", "Subcommands:"});
  refused({"rnu"}, {"retort: there is no command \"rnu\"", "did you mean run?"});
  refused({"run"}, {"retort run: recipe is required", "retort run --help"});
  refused({"cache"}, {"retort cache: ", "retort cache --help"});
  refused({"eval", "--model", "m.gguf"}, {"--recipe", "--data"});
  refused({"eval", "--model", "m.gguf", "--data", "rows.jsonl", "a=b"}, {"a=b", "--recipe"});
  refused({"eval", "--model", "m.gguf", "--data", "rows.jsonl", "--kind", "bleu"}, {"bleu", "perplexity"});
  const ProcessResult version = retort({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_TRUE(retort({"version"}).output.starts_with("retort " + version.output)) << version.output;
}

TEST(Commands, UsageErrorsExit64AndMissingFiles74) {
  EXPECT_EQ(retort({}).status, 64);
  EXPECT_EQ(retort({"rnu"}).status, 64);
  EXPECT_EQ(retort({"run", "no-such-recipe.yaml"}).status, 74);
}

// libgomp prints its settings as it is loaded; the test's own environment may come from the launcher, which sets them.
TEST(Commands, ThreadsWaitBrieflyUnlessTheUserSaysOtherwise) {
  const auto spins = [](const char* setting) {
    return run_program({"/usr/bin/env", "-u", "GOMP_SPINCOUNT", "-u", "OMP_WAIT_POLICY", "OMP_DISPLAY_ENV=VERBOSE",
                        setting, RETORT_PROGRAM, "version"})
        .errors;
  };
  EXPECT_NE(spins("NOTHING=1").find("GOMP_SPINCOUNT = '10000'"), std::string::npos);
  EXPECT_NE(spins("GOMP_SPINCOUNT=77").find("GOMP_SPINCOUNT = '77'"), std::string::npos);
}

}  // namespace
}  // namespace retort
