// The parts of a retraining: rows that are new, outcomes a row, drift that harms, verdicts and who hears of them.
#include <gtest/gtest.h>

#include "core/files.h"
#include "monitor/evaluate.h"
#include "recipes/retrain_drift.h"
#include "recipes/retrain_judge.h"
#include "recipes/retrain_rows.h"
#include "recipes/retrain_verdict.h"
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
  const std::string key = retrain_key(recipe, a, b, "base", "2026-W01");
  EXPECT_EQ(key.size(), 64u);
  EXPECT_EQ(key, retrain_key(recipe, a, b, "base", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, b, a, "base", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "other", "2026-W01"));
  EXPECT_NE(key, retrain_key(recipe, a, b, "base", "2026-W02"));
  EXPECT_NE(key, retrain_key(recipe, rows("a.jsonl", {"1", "1"}), b, "base", "2026-W01")) << "the bytes, not the path";
  recipe.hash = "s";
  EXPECT_NE(key, retrain_key(recipe, a, b, "base", "2026-W01"));
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

TEST_F(RetrainParts, EachModelsVerdictsAreToldOnceAndTidied) {
  const auto attempt = [&](const std::string& name, const std::string& model, int exit) {
    const fs::path run = folder / name / "orders" / "20260101T000000Z-01234567";
    fs::create_directories(run / "checkpoints");
    fs::create_directories(run / "export");
    write_atomic(run / "report.json", "{}");
    write_json(folder / name / "verdict.json", {{"model", model}, {"exit", exit}});
    return run;
  };
  const fs::path a = attempt("a", "orders", 11), b = attempt("b", "orders", 0), c = attempt("c", "others", 12);
  fs::last_write_time(a / "report.json", fs::last_write_time(b / "report.json") - std::chrono::hours(1));
  const std::string heard = folder / "heard";
  NotifyOptions options;
  options.command = {"bash", "-c", "cat >> " + heard};
  EXPECT_TRUE(tell_verdicts(options, folder.path(), "orders").empty());
  EXPECT_TRUE(tell_verdicts(options, folder.path(), "orders").empty());
  EXPECT_EQ(parse_json(read_text(heard), "heard")["exit"], 11) << "once, and nothing of nothing";
  EXPECT_FALSE(fs::exists(folder / "c/told"));
  options.command = {"false"};
  EXPECT_EQ(tell_verdicts(options, folder.path(), "others").size(), 1u);
  EXPECT_FALSE(fs::exists(folder / "c/told"));
  tidy_attempts(folder.path(), "orders", 0);
  EXPECT_FALSE(fs::exists(a / "export"));
  EXPECT_TRUE(fs::exists(b / "export"));
  EXPECT_TRUE(fs::exists(c / "checkpoints"));
  EXPECT_FALSE(fs::exists(a / "checkpoints") || fs::exists(b / "checkpoints"));
  EXPECT_TRUE(fs::exists(a / "report.json"));
}

}  // namespace
}  // namespace retort
