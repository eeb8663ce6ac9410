// The parts of a retraining: rows that are new, outcomes a row, what the gate is given, drift that harms, verdicts, who
// hears of them and what stays of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "core/files.h"
#include "monitor/evaluate.h"
#include "monitor/router.h"
#include "recipes/retrain_attempts.h"
#include "recipes/retrain_drift.h"
#include "recipes/retrain_judge.h"
#include "recipes/retrain_rows.h"
#include "recipes/retrain_verdict.h"
#include "tests/core/http_server.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct RetrainParts : testing::Test {
  TemporaryFolder folder;
  std::vector<DatasetOptions> rows(const std::string& name, const std::vector<std::string>& answers) const {
    std::string text;
    for (const std::string& answer : answers) text += Json{{"prompt", "q"}, {"completion", answer}}.dump() + "\n";
    write_atomic(folder / name, text);
    return {DatasetOptions{.kind = "jsonl", .path = folder / name}};
  }
};

TEST_F(RetrainParts, NewRowsAreThoseOfAnotherText) {
  const RowSet before = RowSet::of(rows("a.jsonl", {"1", "2", "3", "3"}), "key");
  EXPECT_EQ(before.size(), 3) << "each once";
  const RowSet now = RowSet::of(rows("b.jsonl", {"3", "2", "4"}), "key");
  EXPECT_EQ(now.beyond(before), 1);
  EXPECT_EQ(before.beyond(now), 1);
  before.write(folder / "rows.txt");
  EXPECT_EQ(now.beyond(RowSet::read(folder / "rows.txt")), 1);
  EXPECT_EQ(RowSet::of(rows("a.jsonl", {"1", "2", "3"}), "another key").beyond(before), 3);
  // The ends of texts count: "1" + "2" is not "12".
  EXPECT_EQ(RowSet::of(rows("c.jsonl", {"12"}), "").beyond(RowSet::of(rows("d.jsonl", {"1", "2"}), "")), 1);
  write_atomic(folder / "bad.txt", "0123456789abcdef\n0123\n");
  expect_error(Exit::bad_input, {"bad.txt:2"}, [&] { RowSet::read(folder / "bad.txt"); });
}

TEST_F(RetrainParts, TheKeyHoldsAllThatDecides) {
  Recipe recipe;
  recipe.hash = "r";
  const auto a = rows("a.jsonl", {"1"}), b = rows("b.jsonl", {"2"});
  const std::string key = retrain_key(recipe, a, b, "judged", "base", "code", "2026-W01");
  EXPECT_EQ(key.size(), 64u);
  EXPECT_EQ(key, retrain_key(recipe, a, b, "judged", "base", "code", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, b, a, "judged", "base", "code", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "by others", "base", "code", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "judged", "other", "code", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "judged", "base", "another build", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "judged", "base", "code", "2026-W02"));
  EXPECT_NE(key, retrain_key(recipe, rows("a.jsonl", {"1", "1"}), b, "judged", "base", "code", "2026-W01"))
      << "the bytes, not the path";
  recipe.hash = "s";
  EXPECT_NE(key, retrain_key(recipe, a, b, "judged", "base", "code", "2026-W01"));
}

TEST_F(RetrainParts, TrafficIsOfTheDaysSinceThePromotion) {
  std::string log;
  for (const char* day : {"2026-01-04", "2026-01-05", "2026-01-11", "2026-01-12"})
    log += Json{{"prompt", day}, {"time", day}}.dump() + "\n";
  write_atomic(folder / "log.jsonl", log + "{\"prompt\": \"without a time\"}\n");
  std::vector<std::string> read;
  for (const TrafficRow& row :
       fresh_traffic({}, folder / "log.jsonl", *day_of("2026-01-05"), *day_of("2026-01-11"), ProgressSink()))
    read.push_back(row.text);
  EXPECT_EQ(read, (std::vector<std::string>{"2026-01-05", "2026-01-11", "without a time"}));
}

TEST(RetrainOutcomes, AreWhatEachRowGave) {
  Evaluation evaluation;
  evaluation.name = "exact_match";
  evaluation.better = 1;
  const std::vector<RowScore> scores = {{1, 1}, {0, 1}, {0, 1}, {1, 1}, {1, 1}, {0, 1}, {1, 1}};
  estimate_ratio(scores, evaluation);
  EXPECT_EQ(outcomes_of(evaluation), (std::vector<double>{1, 0, 0, 1, 1, 0, 1}));
  evaluation.better = -1;  // fewer are better: larger outcomes are
  EXPECT_EQ(outcomes_of(evaluation), (std::vector<double>{-1, 0, 0, -1, -1, 0, -1}));
  evaluation.influence.clear();
  expect_error(Exit::usage, {"retrain.gate", "exact_match"}, [&] { outcomes_of(evaluation); });
}

/// A row of this place, with its expected answer.
EvaluationRow held_out(const std::string& place, const std::string& expected = "") {
  EvaluationRow row;
  row.place = place;
  row.expected = expected;
  return row;
}

TEST(RetrainGate, ComparesRowsThatBothFilesCanRead) {
  std::vector<EvaluationRow> a = {held_out("a:1"), held_out("a:2"), held_out("a:4")},
                             b = {held_out("a:2"), held_out("a:3"), held_out("a:4")};
  keep_common(a, b);
  for (const auto* rows : {&a, &b}) {
    ASSERT_EQ(rows->size(), 2u);
    EXPECT_EQ(rows->at(0).place, "a:2");
    EXPECT_EQ(rows->at(1).place, "a:4");
  }
}

TEST(RetrainGate, SlicesByAnswerOrFile) {
  const std::vector<EvaluationRow> rows = {held_out("a.jsonl:1", "yes"), held_out("a.jsonl:2", "no"),
                                           held_out("b.jsonl:1", "yes"), held_out("b.jsonl:2", "no")};
  EXPECT_TRUE(slices_of(rows, 4, "none").empty());
  const auto by_answer = slices_of(rows, 3, "answer");  // the evaluator looked at three
  ASSERT_EQ(by_answer.size(), 2u);
  EXPECT_EQ(by_answer[0].name, "no");
  EXPECT_EQ(by_answer[0].rows, (std::vector<size_t>{1}));
  EXPECT_EQ(by_answer[1].rows, (std::vector<size_t>{0, 2}));
  const auto by_file = slices_of(rows, 4, "file");
  ASSERT_EQ(by_file.size(), 2u);
  EXPECT_EQ(by_file[0].name, "a.jsonl");
  EXPECT_EQ(by_file[1].rows, (std::vector<size_t>{2, 3}));
}

TEST(RetrainGate, FloorsHaveTheirRowsWhereTheyAreShares) {
  Evaluation refusal;
  refusal.name = "refusal";
  refusal.unit = "share";
  refusal.better = 0;
  estimate_ratio(std::vector<RowScore>{{0, 1}, {1, 1}, {0, 1}, {0, 1}}, refusal);
  const PromotionFloor share = floor_of("refusal", {.at_least = {}, .at_most = 0.01}, refusal);
  EXPECT_EQ(share.outcomes, (std::vector<double>{0, 1, 0, 0}));
  EXPECT_EQ(share.at_most, 0.01);
  EXPECT_FALSE(share.at_least);
  // None in four rows is no proof.
  estimate_ratio(std::vector<RowScore>{{0, 1}, {0, 1}, {0, 1}, {0, 1}}, refusal);
  const PromotionFloor none = floor_of("refusal", {.at_least = {}, .at_most = 0.01}, refusal);
  PromotionCase first;
  first.without_champion = true;
  first.floors = {none};
  EXPECT_EQ(judge_promotion(first).decision, PromotionDecision::inconclusive);
  // Fewer are better, and the floor is still of the share itself.
  refusal.better = -1;
  estimate_ratio(std::vector<RowScore>{{0, 1}, {1, 1}}, refusal);
  EXPECT_EQ(floor_of("refusal", {.at_least = {}, .at_most = 0.6}, refusal).outcomes, (std::vector<double>{0, 1}));
  // Of other units, and of files, the value with its error.
  Evaluation bits = refusal;
  bits.unit = "bits";
  const PromotionFloor value = floor_of("bits", {.at_least = 0.2, .at_most = {}}, bits);
  EXPECT_TRUE(value.outcomes.empty());
  EXPECT_EQ(value.value, 0.5);
  EXPECT_GT(value.standard_error, 0);
  EXPECT_EQ(value.n, 2);
  EXPECT_FALSE(value.exact);
  bits.influence.clear();
  bits.details["exact"] = true;
  EXPECT_TRUE(floor_of("price", {}, bits).exact);
}

TEST(RetrainGate, MeasuresSpeedOnlyForALimitOfSpeed) {
  const auto never = []() -> Speed {
    ADD_FAILURE() << "measured";
    return {};
  };
  EXPECT_TRUE(limits_of({}, 7, never).empty());
  PromotionOptions options;
  options.max_bytes = 8;
  const auto bytes = limits_of(options, 7, never);
  ASSERT_EQ(bytes.size(), 1u);
  EXPECT_EQ(bytes[0].value, 7);
  EXPECT_EQ(bytes[0].at_most, 8);
  options.max_first_token_seconds = 0.5;
  options.min_tokens_per_second = 20;
  int measured = 0;
  const auto limits = limits_of(options, 7, [&]() -> Speed {
    ++measured;
    return {.generation_tokens_per_second = 30, .first_token_seconds = 0.25};
  });
  EXPECT_EQ(measured, 1);
  ASSERT_EQ(limits.size(), 3u);
  EXPECT_EQ(limits[1].value, 0.25);
  EXPECT_EQ(limits[1].at_most, 0.5);
  EXPECT_FALSE(limits[1].at_least);
  EXPECT_EQ(limits[2].value, 30);
  EXPECT_EQ(limits[2].at_least, 20);
  EXPECT_FALSE(limits[2].at_most);
}

TEST(RetrainHarm, IsToldOnlyWithConfidence) {
  const auto traffic = [](int right, int wrong) {
    std::vector<TrafficRow> rows;
    for (int i = 0; i < right + wrong; ++i)
      rows.push_back({.place = "", .text = "q", .answer = i < right ? " a\n" : "b", .label = "a", .day = {}});
    return rows;
  };
  EXPECT_EQ(is_harmful(traffic(0, 0), 0.9, 0.1), std::nullopt);
  // Of 86 right in 100 it is shown that at least 0.790 are: P(86 or more of 100 | 0.790) = 0.05.
  EXPECT_EQ(is_harmful(traffic(86, 14), 0.9, 0.12), false);
  EXPECT_EQ(is_harmful(traffic(86, 14), 0.9, 0.08), std::nullopt);
  EXPECT_EQ(is_harmful(traffic(60, 40), 0.9, 0.1), true);
  EXPECT_EQ(is_harmful(traffic(3, 0), 0.9, 0.1), std::nullopt) << "three rows show nothing";
  std::vector<TrafficRow> unlabelled = traffic(0, 50);
  for (TrafficRow& row : unlabelled) row.label.reset();
  EXPECT_EQ(is_harmful(unlabelled, 0.9, 0.1), std::nullopt);
}

TEST(RetrainVerdict, HasTheCodesOfTheTable) {
  const std::map<Decision, std::pair<const char*, int>> table = {
      {Decision::nothing_due, {"nothing_due", 0}},      {Decision::due, {"due", 10}},
      {Decision::rolled_back, {"rolled_back", 10}},     {Decision::promoted, {"promoted", 11}},
      {Decision::rejected, {"rejected", 12}},           {Decision::inconclusive, {"inconclusive", 13}},
      {Decision::guard_refused, {"guard_refused", 20}}, {Decision::contaminated, {"contaminated", 21}},
      {Decision::gate_refused, {"gate_refused", 22}}};
  for (const auto& [decision, expected] : table) {
    EXPECT_STREQ(name_of(decision), expected.first);
    EXPECT_EQ(exit_of(decision), expected.second);
  }
}

struct RetrainAttempts : RetrainParts {
  /// An attempt with a verdict; `run`: it trained.
  fs::path attempt(const std::string& name, int64_t at, int exit, bool run, const std::string& model = "orders") const {
    const fs::path path = folder / name;
    fs::create_directories(path);
    Json verdict{{"model", model}, {"exit", exit}, {"decided_at", at}};
    if (run) {
      const fs::path trained = path / "orders" / "20260101T000000Z-01234567";
      fs::create_directories(trained / "checkpoints");
      fs::create_directories(trained / "export");
      write_atomic(trained / "report.json", "{}");
      verdict["run"] = "orders/20260101T000000Z-01234567";
    }
    write_json(path / "verdict.json", verdict);
    return path;
  }
  std::vector<std::string> tell(const NotifyOptions& options, const std::string& model = "orders") const {
    return tell_verdicts(options, decided_attempts(folder.path(), model));
  }
  /// Verdicts in a file.
  int heard(const std::string& name) const {
    int count = 0;
    const std::string text = read_text(folder / name);
    for (size_t at = 0; (at = text.find("\"exit\"", at)) != text.npos; ++at) ++count;
    return count;
  }
};

TEST_F(RetrainAttempts, EachChannelIsToldOnce) {
  attempt("b", 1, 11, true);
  attempt("a", 2, 12, true);
  attempt("c", 3, 0, false);
  attempt("d", 4, 12, true, "others");
  NotifyOptions options;
  options.command = {"bash", "-c", "cat >> " + (folder / "heard").string()};
  std::atomic<int> status = 404;
  HttpServer server([&](const ServerRequest&) { return ServerReply{.status = status}; });
  options.webhook = server.url("/T0KEN");
  // The webhook fails: asked once, and the command is not told again for that.
  for (size_t call = 1; call <= 2; ++call) {
    const std::vector<std::string> failed = tell(options);
    ASSERT_EQ(failed.size(), 1u);
    EXPECT_EQ(failed[0].find("T0KEN"), std::string::npos) << failed[0];
    EXPECT_EQ(server.requests().size(), call);
    EXPECT_EQ(heard("heard"), 2) << "once each, and nothing of nothing";
  }
  EXPECT_LT(read_text(folder / "heard").find("11"), read_text(folder / "heard").find("12")) << "the oldest first";
  status = 200;
  EXPECT_TRUE(tell(options).empty());
  EXPECT_TRUE(tell(options).empty());
  ASSERT_EQ(server.requests().size(), 4u);
  EXPECT_EQ(parse_json(server.requests()[2].body, "body")["exit"], 11);
  EXPECT_EQ(heard("heard"), 2);
  EXPECT_FALSE(fs::exists(folder / "d/told"));
  options.command = {"false"};
  options.webhook.clear();
  EXPECT_EQ(tell(options, "others").size(), 1u);
}

TEST_F(RetrainAttempts, ADamagedOneStopsNothing) {
  const fs::path good = attempt("a", 1, 11, true), bad = attempt("b", 2, 11, true);
  write_atomic(bad / "verdict.json", "{\"model\": \"orders\", \"exi");
  attempt("c", 3, 11, true);
  write_json(folder / "c/verdict.json", {{"model", "orders"}});
  const auto attempts = decided_attempts(folder.path(), "orders");
  ASSERT_EQ(attempts.size(), 1u);
  EXPECT_EQ(attempts[0].path, good);
}

TEST_F(RetrainAttempts, OnlyTheLastOnesStay) {
  std::vector<fs::path> trained, quiet;
  for (int i = 0; i < 4; ++i) {
    trained.push_back(attempt("t" + std::to_string(i), 10 * i, 11, true));
    quiet.push_back(attempt("q" + std::to_string(i), 10 * i + 1, 0, false));
  }
  const fs::path other = attempt("z", 0, 12, true, "others");
  tidy_attempts(decided_attempts(folder.path(), "orders"), 1, quiet[0]);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(fs::exists(trained[static_cast<size_t>(i)]), i >= 2) << i;
    EXPECT_EQ(fs::exists(quiet[static_cast<size_t>(i)]), i >= 2 || i == 0) << i << ": the slot's own stays";
  }
  EXPECT_FALSE(fs::exists(trained[3] / "orders/20260101T000000Z-01234567/checkpoints"));
  EXPECT_TRUE(fs::exists(trained[3] / "orders/20260101T000000Z-01234567/export"));
  EXPECT_TRUE(fs::exists(other / "orders/20260101T000000Z-01234567/checkpoints"));
}

TEST_F(RetrainAttempts, AbandonedOnesGoAfterAWeek) {
  const auto begun = [&](const std::string& name, const std::string& model, int days) {
    const fs::path path = folder / name;
    mark_attempt(path, model);
    fs::last_write_time(path / "model", fs::file_time_type::clock::now() - std::chrono::days(days));
    return path;
  };
  const fs::path old = begun("a", "orders", 8), young = begun("b", "orders", 6), other = begun("c", "others", 8),
                 now = begun("d", "orders", 8), decided = begun("e", "orders", 8);
  write_json(decided / "verdict.json", {{"model", "orders"}, {"exit", 0}, {"decided_at", 1}});
  fs::create_directories(folder / "f");  // nobody's
  tidy_abandoned(folder.path(), "orders", now);
  EXPECT_FALSE(fs::exists(old));
  for (const fs::path& stays : {young, other, now, decided, folder / "f"}) EXPECT_TRUE(fs::exists(stays)) << stays;
}

TEST_F(RetrainAttempts, AVerdictRevokesTheRouterOnce) {
  const fs::path file = folder / "router.json", slot = folder / "slot";
  const auto router_of = [&](const std::string& small) {
    Router router;
    router.source.small_sha256 = small;
    router.isotonic = {{0}, {1}};
    write_router(file, router);
    fs::remove_all(slot);
    fs::create_directories(slot);
  };
  const auto verdict = [](const char* decision, bool alarm) {
    return Json{
        {"slot", "2026-W02"}, {"decision", decision}, {"champion", {{"sha256", "new"}}}, {"drift", {{"alarm", alarm}}}};
  };
  const auto revoked = [&](const char* decision, bool alarm, const std::string& small) {
    router_of(small);
    revoke_for(verdict(decision, alarm), slot, file);
    const Router after = read_router(file);
    return after.revoked ? after.reason : "no";
  };
  EXPECT_EQ(revoked("promoted", false, "old"), "promoted in slot 2026-W02: new serves");
  EXPECT_EQ(revoked("promoted", true, "new"), "no") << "made for the new model already";
  EXPECT_EQ(revoked("rolled_back", true, "old"), "rolled_back in slot 2026-W02: new serves");
  EXPECT_EQ(revoked("rolled_back", true, "new"), "drift: the alarm was raised in slot 2026-W02");
  EXPECT_EQ(revoked("nothing_due", true, "new"), "drift: the alarm was raised in slot 2026-W02");
  EXPECT_EQ(revoked("rejected", false, "old"), "no");
  // One that was calibrated since stays when the slot's verdict is repeated.
  revoked("promoted", false, "old");
  Router fresh = read_router(file);
  fresh.revoked = false;
  write_router(file, fresh);
  revoke_for(verdict("promoted", false), slot, file);
  EXPECT_FALSE(read_router(file).revoked);
  revoke_for(verdict("promoted", false), slot, "");
  revoke_for(verdict("promoted", false), folder / "slot", folder / "none.json");
}

}  // namespace
}  // namespace retort
