// When a new model is due.
#include "recipes/retrain_due.h"

#include <gtest/gtest.h>

#include "tests/core/support.h"

namespace retort {
namespace {

RetrainOptions options(const std::string& yaml) { return from_yaml<RetrainOptions>(Yaml::parse(yaml, "test.yaml")); }

DueFacts quiet() {
  return {.champion = true, .drift = false, .harmful = {}, .rows = 1000, .new_rows = 100, .age_days = 10};
}
DueFacts moved(std::optional<bool> harmful = {}) {
  DueFacts facts = quiet();
  facts.drift = true;
  facts.harmful = harmful;
  return facts;
}

std::string reasons(const Due& due) { return fmt::format("{}", fmt::join(due.reasons, "; ")); }

TEST(RetrainDue, WithoutAChampionItIs) {
  EXPECT_TRUE(is_due(options("{}"), DueFacts()).due);
  EXPECT_TRUE(is_due(options("{min_new_rows: 5}"), DueFacts()).due);
}

TEST(RetrainDue, ByDriftUnlessAskedOtherwise) {
  EXPECT_FALSE(is_due(options("{}"), quiet()).due);
  EXPECT_TRUE(is_due(options("{}"), moved()).due);
  EXPECT_TRUE(is_due(options("{when: drift}"), moved()).due);
  EXPECT_FALSE(is_due(options("{when: {every: 30d}}"), moved()).due);
  DueFacts blind = quiet();
  blind.drift = {};
  EXPECT_NE(reasons(is_due(options("{}"), blind)).find("not looked at"), std::string::npos);
}

TEST(RetrainDue, ByAge) {
  const RetrainOptions monthly = options("{when: {every: 30d}}");
  DueFacts facts = quiet();
  facts.age_days = 29.9;
  EXPECT_FALSE(is_due(monthly, facts).due);
  facts.age_days = 30;
  EXPECT_TRUE(is_due(monthly, facts).due);
  EXPECT_DOUBLE_EQ(days_of("12h"), 0.5);
  EXPECT_DOUBLE_EQ(days_of("4w"), 28);
  for (const char* wrong : {"30", "d", "30m", "-1d", "0d", "30d ", "1e9d", "nan d"})
    expect_error(Exit::usage, {wrong, "30d"}, [&] { days_of(wrong); });
}

TEST(RetrainDue, ByNewRows) {
  const RetrainOptions by_rows = options("{when: {new_rows: 500}}");
  DueFacts facts = quiet();
  facts.new_rows = 499;
  EXPECT_FALSE(is_due(by_rows, facts).due);
  facts.new_rows = 500;
  EXPECT_TRUE(is_due(by_rows, facts).due);
}

TEST(RetrainDue, ByAnExpression) {
  const RetrainOptions both = options("{when: drift and new_rows >= 50 or age_days > 90}");
  EXPECT_TRUE(is_due(both, moved()).due);
  EXPECT_FALSE(is_due(both, quiet()).due);
  DueFacts few = moved();
  few.new_rows = 49;
  EXPECT_FALSE(is_due(both, few).due);
  few.age_days = 91;
  EXPECT_TRUE(is_due(both, few).due);
  EXPECT_TRUE(is_due(options("{when: {every: 5d, expression: harmful}}"), quiet()).due) << "any of them";
  expect_error(Exit::usage, {"test.yaml", "found \"age\"", "age_days"}, [] { options("{when: age > 3}"); });
  expect_error(Exit::usage, {"test.yaml"}, [] { options("{when: drift and}"); });
  expect_error(Exit::usage, {"test.yaml", "new_rows"}, [] { options("{when: {rows: 3}}"); });
}

TEST(RetrainDue, NotWithoutEnoughNewData) {
  DueFacts facts = moved();
  facts.new_rows = 0;
  const Due due = is_due(options("{}"), facts);
  EXPECT_FALSE(due.due);
  EXPECT_NE(reasons(due).find("not enough new data: 0 new rows, 1 are needed"), std::string::npos) << reasons(due);
  EXPECT_TRUE(is_due(options("{min_new_rows: 0}"), facts).due);
  EXPECT_FALSE(is_due(options("{min_new_rows: 101, when: {every: 1d}}"), quiet()).due);
}

TEST(RetrainDue, NotForHarmlessDrift) {
  const RetrainOptions harm = options("{harm: 0.05}");
  const Due harmless = is_due(harm, moved(false));
  EXPECT_FALSE(harmless.due);
  EXPECT_NE(reasons(harmless).find("harmless drift"), std::string::npos);
  EXPECT_TRUE(is_due(harm, moved(true)).due);
  const Due unknown = is_due(harm, moved());
  EXPECT_TRUE(unknown.due);
  EXPECT_NE(reasons(unknown).find("cannot be told"), std::string::npos);
  EXPECT_TRUE(is_due(options("{}"), moved(false)).due) << "only where harm was asked for";
  EXPECT_TRUE(is_due(options("{harm: 0.05, when: {expression: drift, every: 5d}}"), moved(false)).due)
      << "age is a reason of its own";
}

}  // namespace
}  // namespace retort
