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
  EXPECT_EQ(judge_promotion(given).decision, PromotionDecision::promote);
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

TEST(PromotionGate, JudgesScoresByTheBootstrap) {
  PromotionCase given;
  for (int i = 0; i < 300; ++i) {
    given.champion.push_back(0.5);
    given.challenger.push_back(0.5 + 0.1 * ((i * 7919 % 101) / 100.0 - 0.5));
  }
  const PromotionVerdict verdict = judge_promotion(given);
  EXPECT_EQ(verdict.decision, PromotionDecision::promote);
  EXPECT_EQ(verdict.evidence["test"], "paired bootstrap, BCa");
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
