// The promotion gate's verdicts.
#include "registry/gate.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "registry/paired.h"

namespace retort {
namespace {

/// `same` rows alike (right), then gains, then losses.
PromotionCase outcomes(size_t same, size_t gains, size_t losses) {
  PromotionCase given;
  auto add = [&](size_t count, double champion, double challenger) {
    given.champion.insert(given.champion.end(), count, champion);
    given.challenger.insert(given.challenger.end(), count, challenger);
  };
  add(same, 1, 1);
  add(gains, 0, 1);
  add(losses, 1, 0);
  return given;
}

bool says(const PromotionVerdict& verdict, const std::string& text) {
  for (const std::string& reason : verdict.reasons)
    if (reason.find(text) != std::string::npos) return true;
  return false;
}

TEST(PromotionGate, PromotesWhatIsShownToBeNoWorse) {
  const PromotionVerdict verdict = judge_promotion(outcomes(960, 25, 15));
  EXPECT_EQ(verdict.decision, PromotionDecision::promote) << verdict.evidence.dump(1);
  EXPECT_EQ(verdict.evidence["all"]["gains"], 25);
  EXPECT_EQ(verdict.evidence["all"]["losses"], 15);
  EXPECT_GT(verdict.evidence["all"]["low"].get<double>(), -0.02);
  EXPECT_EQ(verdict.evidence["decision"], "promote");
  EXPECT_FALSE(verdict.more_rows);
}

TEST(PromotionGate, RejectsWhatIsShownToBeWorse) {
  const PromotionVerdict verdict = judge_promotion(outcomes(900, 10, 90));
  EXPECT_EQ(verdict.decision, PromotionDecision::reject);
  EXPECT_TRUE(says(verdict, "all rows: worse by more than 0.02"));
}

TEST(PromotionGate, SaysHowManyRowsAreMissing) {
  const PromotionVerdict few = judge_promotion(outcomes(96, 2, 2));
  EXPECT_EQ(few.decision, PromotionDecision::inconclusive);
  ASSERT_TRUE(few.more_rows);
  EXPECT_EQ(*few.more_rows, *rows_for_power(power_terms(0.02, 0.02, 0.02), 0.05, 0.8) - 100);
  EXPECT_TRUE(says(few, "needs " + std::to_string(*few.more_rows) + " more rows"));
  // With as many rows as it asked for, at the same shares, it decides.
  const double times = static_cast<double>(100 + *few.more_rows) / 100 * 1.3;
  auto scaled = [&](double rows) { return static_cast<size_t>(rows * times); };
  EXPECT_EQ(judge_promotion(outcomes(scaled(96), scaled(2), scaled(2))).decision, PromotionDecision::promote);
}

TEST(PromotionGate, KnowsWhenRowsWillNotHelp) {
  const PromotionVerdict verdict = judge_promotion(outcomes(97, 0, 3));  // at the observed loss, beyond the margin
  EXPECT_EQ(verdict.decision, PromotionDecision::inconclusive);
  EXPECT_FALSE(verdict.more_rows);
  EXPECT_EQ(judge_promotion({}).decision, PromotionDecision::inconclusive);
}

TEST(PromotionGate, RejectsForASliceThatGotWorse) {
  PromotionCase given = outcomes(2000, 90, 60);
  PromotionSlice slice{"rare", {}};
  for (size_t i = 2090; i < 2150; ++i) slice.rows.push_back(i);  // the losses
  given.slices = {slice, {"tiny", {0, 1, 2}}};
  const PromotionVerdict verdict = judge_promotion(given);
  EXPECT_EQ(verdict.decision, PromotionDecision::reject);
  EXPECT_TRUE(says(verdict, "rare: worse by more than"));
  EXPECT_EQ(verdict.evidence["slices_too_small"][0]["name"], "tiny");
  given.slices.clear();
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
}

TEST(PromotionGate, CorrectsForTheNumberOfSlices) {
  // One slice whose own p-value is below alpha, among many that are fine.
  PromotionCase given = outcomes(3000, 60, 0);
  PromotionSlice odd{"odd", {}};
  for (size_t i = 0; i < 35; ++i) odd.rows.push_back(i);
  for (size_t i = 0; i < 4; ++i) given.challenger[i] = 0;
  given.slices = {odd};
  const double alone = judge_promotion(given).evidence["slices"][0]["worse_p_value"].get<double>();
  ASSERT_LT(alone, 0.05);
  ASSERT_GT(alone * 3, 0.05);
  for (int s = 0; s < 10; ++s) {
    PromotionSlice slice{"s" + std::to_string(s), {}};
    for (size_t i = 0; i < 40; ++i) slice.rows.push_back(100 + static_cast<size_t>(s) * 40 + i);
    given.slices.push_back(slice);
  }
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
}

TEST(PromotionGate, FloorsMustBeShown) {
  PromotionCase given = outcomes(960, 25, 15);
  given.floors = {{.name = "refusal", .at_least = 0.9, .at_most = {}, .outcomes = std::vector<double>(200, 1)}};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  for (size_t i = 0; i < 20; ++i) given.floors[0].outcomes[i] = 0;  // 0.9 itself is not shown to be 0.9 or more
  given.floors[0].at_least = 0.88;
  const PromotionVerdict open = judge_promotion(given);
  EXPECT_EQ(open.decision, PromotionDecision::inconclusive);
  EXPECT_TRUE(open.more_rows);
  EXPECT_TRUE(says(open, "refusal 0.9"));
  given.floors[0].at_least = 0.97;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::reject);
}

TEST(PromotionGate, FloorsOfAValueWithItsStandardError) {
  PromotionCase given = outcomes(960, 25, 15);
  PromotionFloor floor{.name = "perplexity", .at_least = {}, .at_most = 10, .value = 9, .standard_error = 0.4, .n = 50};
  given.floors = {floor};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.floors[0].standard_error = 0.8;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::inconclusive);
  given.floors[0].value = 12;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::reject);
  given.floors[0].standard_error = 0;
  given.floors[0].value = 10;
  given.floors[0].exact = true;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
}

TEST(PromotionGate, NoErrorIsNoProof) {
  PromotionCase given = outcomes(960, 25, 15);
  given.floors = {{.name = "nats", .at_least = {}, .at_most = 10, .value = 9, .n = 50}};
  const PromotionVerdict unknown = judge_promotion(given);
  EXPECT_EQ(unknown.decision, PromotionDecision::inconclusive);
  EXPECT_FALSE(unknown.more_rows);
  EXPECT_TRUE(says(unknown, "nats 9, must be at most 10: not shown")) << unknown.evidence["reasons"].dump();
  given.floors[0].n = 1;
  EXPECT_EQ(judge_promotion(given).more_rows, 1);
  // No refusal in a handful of answers shows little: of 298 and more it shows at most 0.01.
  given.floors = {{.name = "refusal", .at_least = {}, .at_most = 0.01, .outcomes = std::vector<double>(20, 0)}};
  const PromotionVerdict few = judge_promotion(given);
  EXPECT_EQ(few.decision, PromotionDecision::inconclusive);
  ASSERT_TRUE(few.more_rows);
  EXPECT_NEAR(static_cast<double>(*few.more_rows), 298 - 20, 2);
  given.floors[0].outcomes.resize(300, 0);
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  // Shares of a row too.
  given.floors = {{.name = "f1", .at_least = 0.9, .at_most = {}, .outcomes = std::vector<double>(10, 0.95)}};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::inconclusive);
  given.floors[0].outcomes.resize(200, 0.95);
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.floors[0].outcomes.push_back(1.5);
  EXPECT_THROW(judge_promotion(given), Error);
}

TEST(PromotionGate, TheFirstModelHasFloorsAndLimitsAlone) {
  PromotionCase given;
  given.without_champion = true;
  const PromotionVerdict free = judge_promotion(given);
  EXPECT_EQ(free.decision, PromotionDecision::promote);
  EXPECT_EQ(free.reasons.front(), "there is no champion to compare with: floors and limits decide");
  EXPECT_FALSE(free.evidence.contains("all"));
  given.floors = {{.name = "exact_match", .at_least = 0.9, .at_most = {}, .outcomes = std::vector<double>(20, 1)}};
  const PromotionVerdict few = judge_promotion(given);
  EXPECT_EQ(few.decision, PromotionDecision::inconclusive);
  ASSERT_TRUE(few.more_rows);
  EXPECT_TRUE(says(few, "needs " + std::to_string(*few.more_rows) + " more rows"));
  given.floors[0].outcomes.resize(20 + static_cast<size_t>(*few.more_rows), 1);
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.limits = {{.name = "bytes", .value = 101, .at_most = 100}};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::reject);
  given.champion = given.challenger = {1};
  EXPECT_THROW(judge_promotion(given), Error);
}

TEST(PromotionGate, RejectsBeyondALimit) {
  PromotionCase given = outcomes(960, 25, 15);
  given.limits = {{.name = "bytes", .value = 100, .at_most = 100}};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.limits[0].value = 101;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::reject);
  given.limits[0].value = 100;
  given.limits.push_back({.name = "tokens_per_second", .value = 19, .at_least = 20});
  const PromotionVerdict verdict = judge_promotion(given);
  EXPECT_EQ(verdict.decision, PromotionDecision::reject);
  EXPECT_EQ(verdict.reasons.front(), "tokens_per_second 19, must be at least 20: exceeded");
}

TEST(PromotionGate, FewScoresShowNothing) {
  PromotionCase given{.champion = std::vector<double>(49, 0.5), .challenger = std::vector<double>(49, 0.7)};
  const PromotionVerdict few = judge_promotion(given);
  EXPECT_EQ(few.decision, PromotionDecision::inconclusive);
  EXPECT_EQ(few.more_rows, 1);
  EXPECT_TRUE(says(few, "49 rows of scores show nothing"));
  given.challenger.assign(49, 0.1);
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::inconclusive);
  given.champion.resize(50, 0.5);
  given.challenger.assign(50, 0.7);
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  // A slice of as few is not judged apart.
  given.champion.resize(100, 0.5);
  given.challenger.resize(100, 0.7);
  given.slices = {{"some", {}}};
  for (size_t i = 0; i < 49; ++i) given.slices[0].rows.push_back(i);
  EXPECT_EQ(judge_promotion(given).evidence["slices_too_small"].size(), 1u);
}

TEST(PromotionGate, CountsOnARowThatLosesAllItCan) {
  // As good on each of 60 rows; of scores that may lose 1, a twentieth of all rows may do so all the same.
  PromotionCase given{.champion = std::vector<double>(60, 0.5), .challenger = std::vector<double>(60, 0.5)};
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.range = 1;
  const PromotionVerdict open = judge_promotion(given);
  EXPECT_EQ(open.decision, PromotionDecision::inconclusive);
  ASSERT_TRUE(open.more_rows);
  EXPECT_NEAR(static_cast<double>(*open.more_rows), 149 - 60, 2);  // 0.98^149 = 0.05
  given.champion.resize(60 + static_cast<size_t>(*open.more_rows), 0.5);
  given.challenger = given.champion;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
  given.challenger[0] = 2;
  EXPECT_THROW(judge_promotion(given), Error);
}

TEST(PromotionGate, JudgesScoresByTheBootstrap) {
  PromotionCase given;
  for (int i = 0; i < 300; ++i) {
    given.champion.push_back(0.5);
    given.challenger.push_back(0.5 + 0.1 * ((i * 7919 % 101) / 100.0 - 0.5));
  }
  const PromotionVerdict verdict = judge_promotion(given);
  EXPECT_EQ(verdict.decision, PromotionDecision::promote);
  EXPECT_EQ(verdict.evidence["test"], "paired bootstrap, BCa, and Gaffke's bound");
  for (double& score : given.challenger) score -= 0.1;
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::reject);
}

TEST(PromotionGate, RefusesWhatDoesNotPair) {
  PromotionCase given = outcomes(10, 0, 0);
  given.challenger.pop_back();
  EXPECT_THROW(judge_promotion(given), Error);
  given = outcomes(10, 0, 0);
  given.challenger[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(judge_promotion(given), Error);
  given = outcomes(10, 0, 0);
  given.slices = {{"s", {10}}};
  EXPECT_THROW(judge_promotion(given), Error);
  EXPECT_THROW(judge_promotion(outcomes(10, 0, 0), {.alpha = 0.7}), Error);
}

}  // namespace
}  // namespace retort
