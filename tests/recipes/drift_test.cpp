// Baselines out of data sets, and what Prometheus is told.
#include "recipes/drift.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "data/project_key.h"
#include "tests/core/support.h"

namespace retort {
namespace {

TEST(DriftBaseline, RowsOfDataSetsBecomeTrafficInTheOrderOfTheirKeys) {
  TemporaryFolder folder;
  write_atomic(
      folder / "rows.jsonl",
      "{\"when\": \"2026-02-01\", \"q\": \"second\", \"a\": \"x\"}\n{\"when\": \"2026-01-01\", \"q\": \"first\", "
      "\"a\": \"y\"}\n");
  DatasetOptions file{.kind = "jsonl", .path = folder / "rows.jsonl"};
  file.task.emplace();
  file.task->key.emplace("{{ when }}", "key");
  file.task->system.emplace("Be brief.", "system");
  file.task->prompt.emplace("{{ q }}", "prompt");
  file.task->completion.emplace("{{ a }}", "completion");
  const auto rows = traffic_of({file}, "key");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text, "Be brief.\n\nfirst");
  EXPECT_FALSE(rows[0].answer) << "a reference is not what the model answered";
  EXPECT_EQ(rows[0].day, day_of("2026-01-01"));
  EXPECT_EQ(traffic_of({file}, "file")[0].text, "Be brief.\n\nsecond");
}

TEST(DriftKey, ComesFromTheEnvironmentOrAFile) {
  TemporaryFolder folder;
  setenv("RETORT_TEST_KEY", "0123456789abcdef", 1);
  EXPECT_EQ(project_key("env:RETORT_TEST_KEY", "drift.key"), "0123456789abcdef");
  setenv("RETORT_TEST_KEY", "0123456789abcde", 1);
  expect_error(Exit::usage, {"drift.key", "15 bytes"}, [] { project_key("env:RETORT_TEST_KEY", "drift.key"); });
  unsetenv("RETORT_TEST_KEY");
  expect_error(Exit::usage, {"RETORT_TEST_KEY"}, [] { project_key("env:RETORT_TEST_KEY", "drift.key"); });
  write_atomic(folder / "key", "  0123456789abcdef\n");
  EXPECT_EQ(project_key((folder / "key").string(), "drift.key"), "0123456789abcdef");
  expect_error(Exit::io, {"none"}, [&] { project_key((folder / "none").string(), "drift.key"); });
}

/// tests/golden/check_open_metrics.py reads the same file with Prometheus' own parser.
TEST(DriftMetrics, AreTheGoldenOnes) {
  const std::filesystem::path golden = RETORT_GOLDEN;
  EXPECT_EQ(drift_metrics(read_json(golden / "drift_report.json")), read_text(golden / "drift_metrics.prom"));
}

TEST(DriftExit, NothingComparedIsNoAllClear) {
  const auto of = [](bool alarm, bool compared) {
    return drift_exit({{"drift", {{"decision", {{"alarm", alarm}, {"compared", compared}}}}}});
  };
  EXPECT_EQ(of(false, true), 0);
  EXPECT_EQ(of(true, true), 10);
  EXPECT_EQ(of(false, false), 13);
  EXPECT_EQ(of(true, false), 10) << "the canaries alone";
}

}  // namespace
}  // namespace retort
