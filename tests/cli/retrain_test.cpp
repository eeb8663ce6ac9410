// retort retrain as a scheduler runs it: verdicts, exit codes, what a repeated, killed or refused slot leaves.
#include <gtest/gtest.h>

#include "core/hash.h"
#include "tests/cli/retrain_support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Retrain : testing::Test, RetrainFolder {};

TEST_F(Retrain, FromTheFirstModelToTheNext) {
  const ProcessResult first = run("2026-01-05");
  ASSERT_EQ(first.status, 11) << first.errors;
  const Json promoted = verdict_of(first);
  EXPECT_EQ(promoted["decision"], "promoted");
  EXPECT_EQ(promoted["slot"], "2026-W02");
  EXPECT_EQ(promoted["due"][0], "there is no champion yet");

  // The same slot again: the same answer, and nothing is done.
  const ProcessResult again = run("2026-01-06");
  EXPECT_EQ(again.status, 11);
  EXPECT_EQ(verdict_of(again)["repeated"], true);
  EXPECT_EQ(verdict_of(again)["champion"], promoted["champion"]);
  // Even when all files of the slot are gone.
  fs::remove_all(folder / "runs/retrain");
  EXPECT_EQ(run("2026-01-06").status, 11);

  const ProcessResult quiet = run("2026-01-12", {"--data", log(1, 20, 0, "2026-01-08")});
  EXPECT_EQ(quiet.status, 0) << quiet.output << quiet.errors;
  EXPECT_EQ(verdict_of(quiet)["facts"]["drift"], false);

  add_rows(1000, 60, true);  // another domain
  const std::string moved = log(2, 20, 20, "2026-01-13");
  EXPECT_EQ(run("2026-01-19", {"--data", moved, "--check"}).status, 10);
  const ProcessResult next = run("2026-01-19", {"--data", moved});
  ASSERT_EQ(next.status, 11) << next.output << next.errors;
  const Json second = verdict_of(next);
  EXPECT_EQ(second["champion_before"], (Json{{"sha256", promoted["champion"]["sha256"]}, {"slot", "2026-W02"}}));
  EXPECT_NE(second["champion"], promoted["champion"]);
  EXPECT_EQ(second["facts"]["new_rows"], 60);
  EXPECT_GT(second["gate"]["all"]["difference"].get<double>(), 0);
  EXPECT_EQ(sha256_file(champion()), second["champion"]["sha256"].get<std::string>());
  const fs::path page = folder / "runs/retrain" / second["key"].get<std::string>().substr(0, 12) / "report.html";
  const std::string html = read_text(page);
  for (const char* part : {"Promoted", "the domain has moved", "Challenger less champion", "drift/report.html"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
}

TEST_F(Retrain, AFolderThatCannotBeMadeIsAnErrorOfTheDisk) {
  const ProcessResult result = run("2026-01-05", {"output_dir=" + (folder / "held.jsonl").string()});
  EXPECT_EQ(result.status, 74) << result.errors;
  EXPECT_NE(result.errors.find("held.jsonl/retrain"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("Not a directory"), std::string::npos) << result.errors;
}

TEST_F(Retrain, AnAlarmAfterAPromotionTakesItBack) {
  const std::string first = verdict_of(run("2026-01-05"))["champion"]["sha256"];
  add_rows(300, 20, false);
  const std::string second = verdict_of(run("2026-01-12", {"--force"}))["champion"]["sha256"];
  ASSERT_NE(first, second);
  // One week may be too little evidence, two are not.
  ProcessResult back = run("2026-01-19", {"--data", log(4, 20, 20, "2026-01-13")});
  if (back.status == 0) back = run("2026-01-26", {"--data", log(5, 20, 20, "2026-01-20")});
  EXPECT_EQ(back.status, 10) << back.output << back.errors;
  EXPECT_EQ(verdict_of(back)["decision"], "rolled_back");
  EXPECT_EQ(verdict_of(back)["champion"]["sha256"], first);
  EXPECT_EQ(sha256_file(champion()), first);
}

TEST_F(Retrain, GuardsRefuseTheRowsAndThatIsTheSlotsVerdict) {
  const std::string good = rows.back();
  rows.push_back("{\"prompt\": \"Who has my card 4539578763621486?\", \"completion\": \"ann.lee@example.com\"}\n");
  write_rows();
  const ProcessResult refused = run("2026-01-05");
  EXPECT_EQ(refused.status, 20) << refused.errors;
  EXPECT_EQ(verdict_of(refused)["decision"], "guard_refused");
  EXPECT_EQ(refused.output.find("4539578763621486"), std::string::npos);
  EXPECT_EQ(run("2026-01-05").status, 20);
  // Other rows are another key.
  rows.pop_back();
  write_rows();
  EXPECT_EQ(run("2026-01-05").status, 11);
  // Held-out rows among the training rows.
  rows.push_back(rows_of(0, 5, false));
  write_rows();
  EXPECT_EQ(run("2026-01-12", {"data.guards.contamination={action: fail, whole: true}"}).status, 64);
  EXPECT_EQ(run("2026-01-12", {"data.guards.contamination={action: fail}"}).status, 21);
}

TEST_F(Retrain, WorseAndUndecidedChallengersDoNotServe) {
  ASSERT_EQ(run("2026-01-05").status, 11);
  const std::string before = sha256_file(champion());
  add_rows(300, 20, false);
  const ProcessResult worse = run("2026-01-12", {"--force", "train.learning_rate=2"});
  EXPECT_EQ(worse.status, 12) << worse.output << worse.errors;
  EXPECT_LT(verdict_of(worse)["gate"]["all"]["high"].get<double>(), -0.1);
  // One row tells nothing of the others.
  const ProcessResult open = run("2026-01-12", {"--force", "data.validation.0.limit=1"});
  EXPECT_EQ(open.status, 13) << open.output << open.errors;
  const ProcessResult large = run("2026-01-12", {"--force", "retrain.gate.max_bytes=1000"});
  EXPECT_EQ(large.status, 12) << large.output << large.errors;
  const ProcessResult refused = run("2026-01-12", {"--force", "export.gate.max_kl=0", "export.gate.min_top1=1",
                                                   "export.files=[{format: gguf, type: Q2_K}]"});
  EXPECT_EQ(refused.status, 22) << refused.output << refused.errors;
  EXPECT_EQ(sha256_file(champion()), before);
}

TEST_F(Retrain, OneAtATime) {
  Running first(command("2026-01-05", {"train.max_steps=2000"}), folder / "log");
  ASSERT_TRUE(first.until([&] { return fs::exists(folder / "runs/retrain"); }));
  const ProcessResult second = run("2026-01-05");
  EXPECT_EQ(second.status, 75) << second.errors;
  first.send(SIGTERM);
  EXPECT_EQ(first.wait(), 75);
}

TEST_F(Retrain, WhoeverIsToBeToldIsToldAtLeastOnce) {
  const std::string heard = folder / "heard", hook = folder / "hook.sh", metrics = folder / "m/retort.prom";
  write_atomic(hook, "[ -e " + (folder / "deaf").string() + " ] && exit 3\ncat >> " + heard + "\n");
  const std::vector<std::string> more = {"retrain.notify.command=[bash, " + hook + "]", "retrain.metrics=" + metrics};
  write_atomic(folder / "deaf", "");
  const ProcessResult deaf = run("2026-01-05", more);
  EXPECT_EQ(deaf.status, 11) << deaf.errors;
  EXPECT_NE(deaf.errors.find("notify.command"), std::string::npos) << deaf.errors;
  EXPECT_FALSE(fs::exists(heard));
  fs::remove(folder / "deaf");
  EXPECT_EQ(run("2026-01-05", more).status, 11);
  EXPECT_EQ(parse_json(read_text(heard), "heard")["decision"], "promoted");
  EXPECT_EQ(run("2026-01-05", more).status, 11);
  EXPECT_EQ(parse_json(read_text(heard), "heard")["decision"], "promoted") << "not a second time";
  const std::string text = read_text(metrics);
  EXPECT_NE(text.find("retort_retrain_exit_code{model=\"orders\"} 11\n"), std::string::npos) << text;
  EXPECT_NE(text.find("retort_retrain_decision{model=\"orders\",decision=\"promoted\"} 1\n"), std::string::npos);
  EXPECT_TRUE(text.ends_with("# EOF\n"));
}

TEST_F(Retrain, RecipesThatCannotDecideAreRefusedAtOnce) {
  const auto refused = [&](const std::string& change, const std::vector<std::string>& parts) {
    const ProcessResult result = run("2026-01-05", {change});
    EXPECT_EQ(result.status, 64) << change << result.errors;
    for (const std::string& part : parts) EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
  };
  refused("export.files=[{format: peft}]", {"format: gguf"});
  refused("retrain.gate.evaluator=perplexity", {"retrain.gate.evaluator", "bits_per_byte"});
  refused("evaluate=[{kind: latency}]", {"retrain.gate.evaluator", "none"});
  refused("retrain.gate.floors={exact_match: {at_least: 0.5}}", {"exact_match"});
  refused("retrain.harm=0.1", {"retrain.harm", "bits_per_byte"});
  EXPECT_EQ(run("2026-01-05", {"--slot", "2026-01-05"}).status, 64);
  EXPECT_EQ(run("soon").status, 64);
  EXPECT_FALSE(fs::exists(folder / "runs/retrain"));
}

}  // namespace
}  // namespace retort
