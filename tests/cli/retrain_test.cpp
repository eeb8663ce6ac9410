// retort retrain as a scheduler runs it: verdicts, exit codes, what a repeated, killed or refused slot leaves.
#include <gtest/gtest.h>

#include <fstream>

#include "core/hash.h"
#include "monitor/router.h"
#include "monitor/slot.h"
#include "tests/cli/retrain_support.h"
#include "tests/core/http_server.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct Retrain : testing::Test, RetrainFolder {
  /// Every file below the folder, with its bytes. Readers of SQLite's log leave an index of it, and a log without a
  /// byte.
  std::map<std::string, std::string> everything() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path()))
      if (entry.is_symlink())
        files[entry.path()] = fs::read_symlink(entry.path());
      else if (entry.is_regular_file() && !entry.path().string().starts_with((folder / "cache").string()) &&
               !entry.path().string().ends_with("-shm") && entry.file_size() > 0)
        files[entry.path()] = read_text(entry.path());
    return files;
  }
  /// A day of labelled traffic of the usual domain, of which so many answers are wrong.
  static std::string labelled(uint64_t seed, int count, int wrong, const std::string& day) {
    std::string text;
    Rng rng(seed);
    for (int i = 0; i < count; ++i)
      text += Json{{"prompt", fmt::format("{} {}", question(rng, false), number(seed + static_cast<uint64_t>(i)))},
                   {"answer", i < wrong ? "No." : "On Monday."},
                   {"label", "On Monday."},
                   {"time", day}}
                  .dump() +
              "\n";
    return text;
  }
};

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

  // Too few rows are no sign that nothing moved.
  const ProcessResult few = run("2026-01-12", {"--data", log(1, 5, 0, "2026-01-08"), "--check"});
  EXPECT_EQ(few.status, 0) << few.errors;
  EXPECT_TRUE(verdict_of(few)["facts"]["drift"].is_null()) << few.output;

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

  const std::string card = retort({"registry", "card", "orders", "--registry", (folder / "registry").string()}).output;
  const std::string rows_file = "| files.0 | name " + (folder / "train.jsonl").string() + ", sha256 ";
  for (const std::string& part :
       {std::string("license: \"apache-2.0\"\n"), std::string("base_model: "),
        "datasets: [\"" + (folder / "train.jsonl").string(), rows_file, std::string("\n## guards\n"),
        std::string("| kept | 100 |"), std::string("| looked_for.pii.action | fail |"), std::string("\n## drift\n"),
        std::string("| alarm | true |"), std::string("| level | "), std::string("detector ks, "),
        std::string("| due | "), std::string("| gate.kl_mean | "), std::string("| seed | 1 |"),
        std::string("| 95 % interval |"), std::string("| bits_per_byte | validation | challenger | ")})
    EXPECT_NE(card.find(part), std::string::npos) << part << "\n" << card;
  const Json old = parse_json(retort({"registry", "show", "orders", promoted["champion"]["sha256"].get<std::string>(),
                                      "--json", "--registry", (folder / "registry").string()})
                                  .output,
                              "show");
  EXPECT_EQ(old["drift"]["alarm"], true);
  EXPECT_EQ(old["drift"]["slot"], "2026-W03");
  EXPECT_FALSE(old["drift"]["signals"].empty());
}

TEST_F(Retrain, FloorsAndLimitsDecideAboutTheFirstModel) {
  const auto verdict = [&](const std::string& gate) {
    return verdict_of(run("2026-01-05", {"evaluate=[{kind: bits_per_byte}, {kind: refusal}]", gate}));
  };
  const Json missed = verdict("retrain.gate.floors={bits_per_byte: {at_most: 0.001}}");
  EXPECT_EQ(missed["decision"], "rejected") << missed.dump(1);
  const Json slow = verdict("retrain.gate.min_tokens_per_second=1e9");
  EXPECT_EQ(slow["decision"], "rejected") << slow.dump(1);
  EXPECT_NE(slow["reasons"][0].get<std::string>().find("tokens per second"), std::string::npos);
  // No refusal in 120 rows does not show that there are fewer than one in a hundred.
  const Json open = verdict("retrain.gate.floors={refusal: {at_most: 0.01}}");
  EXPECT_EQ(open["decision"], "inconclusive") << open.dump(1);
  EXPECT_GT(open["more_rows"].get<int64_t>(), 150);
  EXPECT_FALSE(fs::exists(champion()));
  const Json kept = verdict("retrain.gate.floors={refusal: {at_most: 0.05}, bits_per_byte: {at_most: 50}}");
  EXPECT_EQ(kept["decision"], "promoted") << kept.dump(1);
  EXPECT_EQ(kept["reasons"][0], "there is no champion to compare with: floors and limits decide");
}

TEST_F(Retrain, AFolderThatCannotBeMadeIsAnErrorOfTheDisk) {
  const ProcessResult result = run("2026-01-05", {"output_dir=" + (folder / "held.jsonl").string()});
  EXPECT_EQ(result.status, 74) << result.errors;
  EXPECT_NE(result.errors.find("held.jsonl/retrain"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("Not a directory"), std::string::npos) << result.errors;
}

TEST_F(Retrain, SecretsOfTheEnvironmentAreStoredNowhere) {
  HttpServer server([](const ServerRequest&) { return ServerReply{.status = 404}; });
  setenv("RETORT_TEST_HOOK", server.url("/T0KEN").c_str(), 1);
  const std::string router = folder / "router.json";
  Router of_before;
  of_before.source.small_sha256 = "old";
  of_before.isotonic = {{0}, {1}};
  write_router(router, of_before);
  const ProcessResult result =
      run("2026-01-05", {"retrain.notify.webhook=${env:RETORT_TEST_HOOK}", "retrain.router=" + router});
  unsetenv("RETORT_TEST_HOOK");
  EXPECT_EQ(result.status, 11) << result.errors;
  ASSERT_EQ(server.requests().size(), 1u);
  EXPECT_EQ(server.requests()[0].path, "/T0KEN");
  EXPECT_EQ(parse_json(server.requests()[0].body, "body")["decision"], "promoted");
  EXPECT_NE(result.errors.find(server.url() + ": not delivered"), std::string::npos) << result.errors;
  EXPECT_EQ((result.errors + result.output).find("T0KEN"), std::string::npos) << result.errors;
  size_t files = 0;
  for (const char* below : {"runs", "registry"})
    for (const auto& entry : fs::recursive_directory_iterator(folder / below))
      if (entry.is_regular_file()) {
        ++files;
        EXPECT_EQ(read_text(entry.path()).find("T0KEN"), std::string::npos) << entry.path();
      }
  EXPECT_GT(files, 10u);
  // And the router of the model before serves no more.
  EXPECT_TRUE(read_router(router).revoked);
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

TEST_F(Retrain, ALookChangesNothingAndTellsNobody) {
  const std::vector<std::string> more = {
      "retrain.notify.command=[bash, -c, \"cat >> " + (folder / "heard").string() + "\"]",
      "retrain.notify.when_nothing_is_due=true", "retrain.metrics=" + (folder / "retort.prom").string()};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  const auto before_all = everything();
  EXPECT_EQ(run("2026-01-05", with({"--check"})).status, 10) << "there is no champion";
  EXPECT_EQ(everything(), before_all) << "no registry is made";
  ASSERT_EQ(run("2026-01-05", with({})).status, 11);
  add_rows(300, 20, false);
  ASSERT_EQ(run("2026-01-12", with({"--force"})).status, 11);
  add_rows(400, 20, false);
  const auto look = [&](const std::string& day, std::vector<std::string> arguments, int status) {
    arguments.push_back("--check");
    const auto before = everything();
    ProcessResult result = run(day, with(arguments));
    EXPECT_EQ(result.status, status) << result.output << result.errors;
    const auto after = everything();
    for (const auto& [file, bytes] : after) EXPECT_TRUE(before.contains(file) && before.at(file) == bytes) << file;
    EXPECT_EQ(before.size(), after.size());
    return verdict_of(result);
  };
  // The promotion's slot is decided, and still: is one due?
  EXPECT_EQ(look("2026-01-12", {}, 0)["decision"], "nothing_due");
  // Rows of a guard's refusal are not this question.
  rows.push_back("{\"prompt\": \"My card?\", \"completion\": \"4539578763621486\"}\n");
  write_rows();
  look("2026-01-19", {}, 0);
  rows.pop_back();
  write_rows();
  // An alarm that would take the promotion back, twice: the alarm has not been stepped.
  const std::string moved = log(4, 40, 40, "2026-01-13");
  for (int i = 0; i < 2; ++i) {
    const Json due = look("2026-01-19", {"--data", moved}, 10);
    EXPECT_EQ(due["decision"], "due");
    EXPECT_EQ(due["reasons"][0], "the slot would take the last promotion back");
  }
  EXPECT_EQ(verdict_of(run("2026-01-19", with({"--data", moved})))["decision"], "rolled_back");
}

TEST_F(Retrain, AFixedBaselineDoesNotTakeBackWhatItAskedFor) {
  ASSERT_EQ(run("2026-01-05").status, 11);
  add_rows(1000, 60, true);  // another domain, for good; the baseline stays as it is
  const ProcessResult moved = run("2026-01-19", {"--data", log(2, 20, 20, "2026-01-13")});
  ASSERT_EQ(moved.status, 11) << moved.output << moved.errors;
  const std::string second = verdict_of(moved)["champion"]["sha256"];
  int alarms = 0;
  for (const auto& [day, asked] : std::map<std::string, std::string>{
           {"2026-01-26", "2026-01-20"}, {"2026-02-02", "2026-01-27"}, {"2026-02-09", "2026-02-03"}}) {
    const ProcessResult next = run(day, {"--data", log(day.back(), 20, 20, asked)});
    EXPECT_EQ(next.status, 0) << next.output << next.errors;
    const Json verdict = verdict_of(next);
    EXPECT_EQ(verdict["champion"]["sha256"], second);
    alarms += verdict["facts"]["drift"] == Json(true);
  }
  EXPECT_GT(alarms, 0) << "else nothing was tested";
}

TEST_F(Retrain, WithoutABaselineTheTrainingRowsAreUsual) {
  const std::vector<std::string> following = {"~drift.baseline", "retrain.gate.margin=10"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), following.begin(), following.end());
    return arguments;
  };
  ASSERT_EQ(run("2026-01-05", following).status, 11);
  EXPECT_EQ(run("2026-01-12", with({"--data", log(1, 20, 0, "2026-01-08")})).status, 0);
  rows.clear();
  add_rows(1000, 60, true);  // the old rows are given up
  const ProcessResult moved = run("2026-01-19", with({"--data", log(2, 20, 20, "2026-01-13")}));
  ASSERT_EQ(moved.status, 11) << moved.output << moved.errors;
  const ProcessResult after = run("2026-01-26", with({"--data", log(3, 20, 20, "2026-01-20")}));
  EXPECT_EQ(after.status, 0) << after.output << after.errors;
  EXPECT_EQ(verdict_of(after)["facts"]["drift"], false);
}

TEST_F(Retrain, HarmIsJudgedByTheTrafficSinceTheLastLook) {
  const std::vector<std::string> harm = {"evaluate=[{kind: exact_match, max_tokens: 12}]", "retrain.harm=0.05"};
  const auto week = [&](const std::string& day, const std::string& traffic) {
    write_atomic(folder / "traffic.jsonl", traffic);
    std::vector<std::string> arguments = {"--data", folder / "traffic.jsonl"};
    arguments.insert(arguments.end(), harm.begin(), harm.end());
    return verdict_of(run(day, arguments));
  };
  const ProcessResult first = run("2026-01-05", harm);
  ASSERT_EQ(first.status, 11) << first.errors;
  ASSERT_GT(verdict_of(first)["accuracy"].get<double>(), 0.4);
  const std::string good = labelled(1, 600, 0, "2026-01-08");
  EXPECT_EQ(week("2026-01-12", good)["facts"]["harmful"], false);
  // A month of good answers in the same log does not outweigh a bad week.
  EXPECT_EQ(week("2026-01-19", good + labelled(2, 60, 60, "2026-01-15"))["facts"]["harmful"], true);
}

TEST_F(Retrain, AnAgeIsCountedFromAPromotionByHandToo) {
  ASSERT_EQ(run("2026-01-05").status, 11);
  add_rows(300, 20, false);
  const ProcessResult open = run("2026-01-12", {"--force", "data.validation.0.limit=1"});
  ASSERT_EQ(open.status, 13) << open.errors;
  const std::string challenger = verdict_of(open)["challenger"]["sha256"];
  ASSERT_EQ(retort({"registry", "promote", "orders", challenger, "--registry", folder / "registry"}).status, 0);
  add_rows(400, 20, false);
  const auto day = [](int days) {
    return slot_name("day",
                     std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now()) + std::chrono::days(days));
  };
  EXPECT_EQ(run(day(20), {"retrain.when={every: 30d}"}).status, 0);
  const ProcessResult old = run(day(40), {"retrain.when={every: 30d}", "--check"});
  EXPECT_EQ(old.status, 10) << old.output;
  EXPECT_NEAR(verdict_of(old)["facts"]["age_days"].get<double>(), 40, 2);
}

TEST_F(Retrain, AnotherBuildDecidesAnew) {
  ASSERT_EQ(run("2026-01-05").status, 11);
  const fs::path program = folder / "retort";
  fs::copy_file(RETORT_PROGRAM, program);
  std::vector<std::string> same = command("2026-01-05");
  same.insert(same.begin(), program);
  EXPECT_EQ(verdict_of(run_program(same))["repeated"], true) << "the same bytes at another place";
  std::ofstream(program, std::ios::app) << "another build";
  const ProcessResult other = run_program(same);
  EXPECT_EQ(other.status, 0) << other.errors;
  EXPECT_EQ(verdict_of(other)["decision"], "nothing_due");
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

TEST_F(Retrain, OtherRulesOfTheGuardsAreAnotherKey) {
  const auto with = [&](const std::string& word) {
    write_atomic(folder / "rules.toml", fmt::format("[[rules]]\nid = \"word\"\nregex = \"{}\"\n", word));
    return run("2026-01-05",
               {fmt::format("data.guards={{secrets: {{rules: {}, action: fail}}}}", (folder / "rules.toml").string())});
  };
  ASSERT_EQ(with("zq[0-9]{9}").status, 11);
  EXPECT_EQ(verdict_of(with("zq[0-9]{9}"))["repeated"], true);
  EXPECT_EQ(with("Monday").status, 20) << "the recipe names the same file";
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
  const ProcessResult checked = retort({"check", recipe, "retrain.gate.floors={exact_match: {at_least: 0.5}}"});
  EXPECT_EQ(checked.status, 64) << checked.errors;
  EXPECT_NE(checked.errors.find("exact_match"), std::string::npos) << checked.errors;
  for (const char* other : {"f1", "rouge_l"}) {
    const ProcessResult result = run("2026-01-05", {fmt::format("evaluate=[{{kind: {}}}]", other), "retrain.harm=0.1"});
    EXPECT_EQ(result.status, 64) << other << result.errors;
    EXPECT_NE(result.errors.find("exact_match"), std::string::npos) << result.errors;
  }
  EXPECT_EQ(run("2026-01-05", {"--slot", "2026-01-05"}).status, 64);
  EXPECT_EQ(run("soon").status, 64);
  EXPECT_FALSE(fs::exists(folder / "runs/retrain"));
}

}  // namespace
}  // namespace retort
