// Guards as a shell sees them: alone, in the plan, in a run's report; their codes, files and refusals.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "core/files.h"
#include "core/json.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

const std::string question =
    "How do I reset the password of my account at the help desk when I am abroad and have no phone?";

// A recipe whose model is not there: guards need none.
struct GuardCommand : testing::Test {
  TemporaryFolder folder;
  std::string recipe = (folder / "recipe.yaml").string();

  void SetUp() override {
    write_rows("train.jsonl", {{question, "Write to ann.lee@example.com."},
                               {question, "Write to ann.lee@example.com!"},
                               {"What is a byte?", "Eight bits."}});
    write_rows("held.jsonl", {{"What is a byte?", "Eight bits."}});
    write_recipe("{}");
  }
  void write_rows(const char* name, const std::vector<std::pair<std::string, std::string>>& rows) const {
    std::string text;
    for (const auto& [prompt, completion] : rows)
      text += Json{{"prompt", prompt}, {"completion", completion}}.dump() + "\n";
    write_atomic(folder / name, text);
  }
  void write_recipe(const std::string& guards) const {
    write_atomic(recipe, fmt::format("name: guarded\noutput_dir: {0}/runs\nmodel: {{path: {0}/none.gguf}}\ndata:\n"
                                     "  train: [{{kind: jsonl, path: {0}/train.jsonl}}]\n"
                                     "  validation: [{{kind: jsonl, path: {0}/held.jsonl}}]\n  guards: {1}\n",
                                     folder.path().string(), guards));
  }
  fs::path audit() const { return folder / "runs/guarded/audit.jsonl"; }
};

TEST_F(GuardCommand, TellsWhatItFoundWithoutAModel) {
  const ProcessResult result = retort({"guard", recipe, "--json"});
  ASSERT_EQ(result.status, 0) << result.errors;
  const Json guards = parse_json(result.output, "guard");
  EXPECT_EQ(guards["rules"]["deduplicate"]["near"]["rows"], 1);
  EXPECT_EQ(guards["rules"]["contamination"]["whole"]["rows"], 1);
  EXPECT_EQ(guards["kept"], 3);
  std::ifstream lines(audit());
  std::set<std::string> rules;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(line.find("example.com"), std::string::npos) << line;
    rules.insert(parse_json(line, "audit")["rule"]);
  }
  EXPECT_EQ(rules, (std::set<std::string>{"near", "whole"}));
  const ProcessResult text = retort({"guard", recipe});
  for (const char* part : {"deduplicate.near", "contamination.whole", "audit.jsonl", "Names of people and places"})
    EXPECT_NE(text.output.find(part), std::string::npos) << text.output;
}

TEST_F(GuardCommand, WritesTheRowsThatPass) {
  const std::string clean = (folder / "clean.jsonl").string();
  write_recipe("{deduplicate: {action: drop}, pii: {action: redact}}");
  ASSERT_EQ(retort({"guard", recipe, "--clean", clean}).status, 0);
  const std::string text = read_text(clean);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_NE(text.find("Write to [EMAIL]."), std::string::npos) << text;
  // The file is a data set again.
  const ProcessResult again = retort({"guard", recipe, "--json", "data.train=[{kind: jsonl, path: " + clean + "}]"});
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_EQ(parse_json(again.output, "guard")["rows"], 2);
}

TEST_F(GuardCommand, ItsCodesSayWhichGuardRefused) {
  const std::string clean = (folder / "clean.jsonl").string();
  EXPECT_EQ(retort({"guard", recipe, "data.guards.deduplicate.action=fail", "--clean", clean}).status, 20);
  EXPECT_FALSE(fs::exists(clean));
  EXPECT_TRUE(fs::exists(audit()));
  EXPECT_EQ(retort({"guard", recipe, "data.guards.contamination.action=fail"}).status, 21);
  EXPECT_EQ(
      retort({"guard", recipe, "data.guards.contamination.action=fail", "data.guards.deduplicate.action=fail"}).status,
      21);
  EXPECT_EQ(retort({"guard", recipe, "data.guards.dedup={}"}).status, 64);
}

TEST_F(GuardCommand, ComparesWithTheRowsOfATaskThatTheRecipeEvaluates) {
  write_atomic(folder / "task.yaml",
               "task: desk\ndataset_path: json\ndataset_kwargs: {data_files: {test: quiz.jsonl}}\n"
               "description: \"Answer.\\n\"\ndoc_to_text: \"{{ q }}\"\ndoc_to_target: a\n"
               "num_fewshot: 1\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n"
               "metric_list: [{metric: exact_match}]\n");
  write_atomic(folder / "quiz.jsonl", Json{{"q", "What is a bit?"}, {"a", "Zero or one."}}.dump() + "\n" +
                                          Json{{"q", question}, {"a", "Write to the desk."}}.dump() + "\n");
  write_rows("train.jsonl", {{question, "Call them."}, {"What is a bit?", "Zero or one!"}, {"And a word?", "Bytes."}});
  const std::string evaluate = "evaluate=[{kind: task, name: quiz, path: " + (folder / "task.yaml").string() + "}]";
  EXPECT_EQ(retort({"guard", recipe, "data.guards.contamination.action=fail"}).status, 0);
  const ProcessResult result = retort({"guard", recipe, "data.guards.contamination.action=fail", evaluate, "--json"});
  EXPECT_EQ(result.status, 21) << result.errors;
  const Json rules = parse_json(result.output, "guard")["rules"]["contamination"];
  EXPECT_EQ(rules["ngram"]["rows"], 1) << rules;
  EXPECT_EQ(rules["whole"]["rows"], 1) << rules;
  EXPECT_NE(read_text(audit()).find("quiz row " + (folder / "quiz.jsonl").string() + ":2"), std::string::npos);
  // Rows that a limit keeps from the evaluator are not held out.
  const std::string first = "evaluate=[{kind: task, limit: 1, path: " + (folder / "task.yaml").string() + "}]";
  EXPECT_EQ(parse_json(retort({"guard", recipe, first, "--json"}).output, "guard")["rules"]["contamination"].size(),
            1U);
  write_atomic(folder / "task.yaml", "task: desk\n");
  EXPECT_EQ(retort({"guard", recipe, evaluate}).status, 64);
}

TEST_F(GuardCommand, LeavesNothingHalfWrittenOnAFullDisk) {
  std::vector<std::pair<std::string, std::string>> rows(60000, {"same", "row"});
  write_rows("train.jsonl", rows);
  // 64 KB a file: what a full disk does to a writer.
  const ProcessResult result =
      run_program({"/bin/bash", "-c", "trap '' XFSZ; ulimit -f 64; exec " RETORT_PROGRAM " guard " + recipe});
  EXPECT_EQ(result.status, 74) << result.errors;
  EXPECT_NE(result.errors.find("audit.jsonl"), std::string::npos) << result.errors;
  EXPECT_FALSE(fs::exists(audit()));
  EXPECT_TRUE(!fs::exists(audit().parent_path()) || fs::is_empty(audit().parent_path()));
}

TEST_F(GuardCommand, LeavesNothingHalfWrittenWhenItIsKilled) {
  std::vector<std::pair<std::string, std::string>> rows(200000, {"same", "row"});
  write_rows("train.jsonl", rows);
  Running running({"guard", recipe}, (folder / "log").string());
  const auto begun = [&] { return fs::exists(audit().parent_path()) && !fs::is_empty(audit().parent_path()); };
  ASSERT_TRUE(running.until(begun));
  running.send(SIGKILL);
  running.wait();
  EXPECT_FALSE(fs::exists(audit()));
  EXPECT_EQ(retort({"guard", recipe}).status, 0);
  EXPECT_TRUE(fs::exists(audit()));
}

TEST_F(GuardCommand, NamesTheLineOfABadRuleFile) {
  const std::string rules = (folder / "rules.toml").string();
  write_atomic(rules, "title = \"x\"\n[[rules]\n");
  const ProcessResult result = retort({"guard", recipe, "data.guards.secrets={rules: " + rules + "}"});
  EXPECT_EQ(result.status, 65);
  EXPECT_NE(result.errors.find("rules.toml:2"), std::string::npos) << result.errors;
  EXPECT_FALSE(fs::exists(audit()));
}

TEST_F(GuardCommand, NoValueIsInTheAuditsBytes) {
  const std::vector<std::string> values = {"ann.lee@example.com", "4539578763621486", "GB82WEST12345698765432",
                                           "123-45-6789",         "+1 212 555 0123",  "8.8.4.4",
                                           "x7Rq0pLw92"};
  std::vector<std::pair<std::string, std::string>> rows = {{"password = x7Rq0pLw92", "none"}};
  for (const std::string& value : values) rows.push_back({"What is mine?", "It is " + value + ", " + value + "."});
  write_rows("train.jsonl", rows);
  write_rows("held.jsonl", rows);
  const ProcessResult result = retort({"guard", recipe, "data.guards.pii={}", "data.guards.quality={}"});
  ASSERT_EQ(result.status, 0) << result.errors;
  const std::string bytes = read_text(audit());
  for (const char* rule : {"email", "card", "iban", "us_ssn", "phone", "ip", "assignment", "whole"})
    EXPECT_NE(bytes.find(fmt::format("\"rule\":\"{}\"", rule)), std::string::npos) << rule;
  for (const std::string& value : values) {
    EXPECT_EQ(bytes.find(value), std::string::npos) << value;
    EXPECT_EQ((result.output + result.errors).find(value), std::string::npos) << value;
  }
}

TEST_F(GuardCommand, RefusesAProjectKeyInTheRecipe) {
  const ProcessResult result = retort({"guard", recipe, "data.guards.key=abc"});
  EXPECT_EQ(result.status, 64);
  EXPECT_NE(result.errors.find("key_file"), std::string::npos) << result.errors;
}

// The quickstart with few rows and two steps.
struct GuardedRun : testing::Test {
  TemporaryFolder folder;
  std::vector<std::string> command(const std::string& name, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {name,
                                          RETORT_SOURCE_DIR "/configs/quickstart.yaml",
                                          "output_dir=" + (folder / "runs").string(),
                                          "train.max_steps=1",
                                          "data.max_length=160",
                                          "data.truncation=drop",
                                          "data.train.0.limit=12",
                                          "data.validation.0.limit=4",
                                          "export.files=[{format: peft}]",
                                          "evaluate=[]"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

TEST_F(GuardedRun, TrainsOnTheRowsThatPass) {
  const fs::path latest = folder / "runs/foldoc-categories/latest";
  const std::string drop =
      "data.guards.quality={action: drop, rules: [gopher_max_words], limits: {gopher_max_words: 0}}";
  ASSERT_EQ(retort(command("run", {})).status, 0);
  const Json plain = read_json(latest / "report.json");
  EXPECT_EQ(plain["guards"]["rows"], 12);
  EXPECT_EQ(plain["guards"]["kept"], 12);
  EXPECT_TRUE(fs::exists(latest / "audit.jsonl"));
  const std::string page = read_text(latest / "report.html");
  EXPECT_NE(page.find("id=\"guards\""), std::string::npos);
  EXPECT_NE(page.find("Names of people and places were not looked for"), std::string::npos);

  // Other guards, other rows, and no cache that still holds the old ones. "systems programming" has two words, the
  // others one: rows of one category only go.
  const std::string two_words =
      "data.guards.quality={action: drop, rules: [gopher_max_words], limits: {gopher_max_words: 1}}";
  const ProcessResult result = retort(command("check", {"data.train.0.limit=100", two_words, "--json"}));
  ASSERT_EQ(result.status, 0) << result.errors;
  const Json check = parse_json(result.output, "check");
  ASSERT_TRUE(check["guards"]["rules"].contains("quality")) << check["guards"];
  EXPECT_EQ(check["guards"]["dropped"], check["guards"]["rules"]["quality"]["gopher_max_words"]["rows"]);
  EXPECT_GT(check["guards"]["dropped"], 0);
  EXPECT_EQ(check["data"]["ledger"]["rows"], check["guards"]["kept"]);
  // The second time the rows come from the cache, and so do the findings.
  EXPECT_EQ(
      parse_json(retort(command("check", {"data.train.0.limit=100", two_words, "--json"})).output, "check")["guards"],
      check["guards"]);

  EXPECT_EQ(retort(command("check", {drop})).status, 20);  // every row
  const ProcessResult failed =
      retort(command("run", {"data.guards.quality={action: fail, rules: [gopher_min_words]}"}));
  EXPECT_EQ(failed.status, 20);
  for (const char* part : {"gopher_min_words", "foldoc.dict.dz"})
    EXPECT_NE(failed.errors.find(part), std::string::npos) << failed.errors;
}

}  // namespace
}  // namespace retort
