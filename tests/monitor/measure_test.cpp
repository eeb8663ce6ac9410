// Rows are measured once, and what is remembered of them stays small.
#include "monitor/measure.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "monitor/measure_cache.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

RowMeasure measure(double number) {
  RowMeasure one;
  one.numbers["length"] = number;
  one.counts["token_distribution"] = {{7, 2}, {4000, 1}};
  one.features["embedding"] = std::vector<int32_t>(2 * kFrequencies, -5);
  return one;
}

TEST(MeasureCache, GivesBackWhatItWasGiven) {
  TemporaryFolder folder;
  const fs::path path = folder / "drift" / "a.rows";
  MeasureCache first(path, "key");
  EXPECT_FALSE(first.find("aa"));
  first.add("aa", measure(1));
  first.add("bb", measure(0.1));
  EXPECT_EQ(first.find("aa")->numbers, measure(1).numbers);
  first.flush();
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  MeasureCache second(path, "key");
  EXPECT_EQ(second.find("bb")->numbers, measure(0.1).numbers);
  EXPECT_EQ(second.find("bb")->counts, measure(0).counts);
  EXPECT_EQ(second.find("bb")->features, measure(0).features);
  const TrafficRow row{"log:1", "text", std::nullopt, std::nullopt, std::nullopt},
      answered{"log:1", "text", "", std::nullopt, std::nullopt};
  EXPECT_EQ(first.row_key(row), second.row_key(row));
  EXPECT_NE(first.row_key(row), first.row_key(answered));
  EXPECT_NE(first.row_key(row), MeasureCache(path, "other").row_key(row));
}

TEST(MeasureCache, ABrokenLineCostsOneRow) {
  TemporaryFolder folder;
  const fs::path path = folder / "a.rows";
  MeasureCache first(path, "key");
  for (const char* row : {"aa", "bb"}) first.add(row, measure(1));
  first.flush();
  const std::string text = read_text(path);
  write_atomic(path, text.substr(0, text.size() - 30));
  MeasureCache second(path, "key");
  EXPECT_TRUE(second.find("aa"));
  EXPECT_FALSE(second.find("bb"));
  second.add("bb", measure(2));
  second.flush();
  EXPECT_EQ(MeasureCache(path, "key").find("bb")->numbers.at("length"), 2);
}

TEST(MeasureCache, OldRowsThatNobodyAsksForGo) {
  TemporaryFolder folder;
  const fs::path path = folder / "a.rows";
  const auto name = [](int i) { return fmt::format("{:04}", i); };
  uint64_t line = 0;
  for (int day = 0; day < 10; ++day) {  // ten rows a day, and the first row is always among them
    MeasureCache cache(path, "key");
    if (day > 0) {
      EXPECT_TRUE(cache.find(name(0))) << day;
    }
    for (int i = 0; i < 10; ++i) cache.add(name(10 * day + i), measure(day));
    cache.flush();
    if (day == 0) line = fs::file_size(path) / 10;
    cache.prune(40 * line);
    EXPECT_LE(fs::file_size(path), (11 + 41) * line) << day;
  }
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  MeasureCache last(path, "key");
  for (int i : {0, 90, 99, 89, 80}) EXPECT_TRUE(last.find(name(i))) << i;
  for (int i : {1, 9, 30}) EXPECT_FALSE(last.find(name(i))) << i;
  // Rows that another process adds meanwhile stay.
  MeasureCache other(path, "key");
  other.add("new", measure(5));
  other.flush();
  last.prune(4 * line);
  MeasureCache after(path, "key");
  EXPECT_TRUE(after.find(name(0)));
  EXPECT_TRUE(after.find("new"));
  EXPECT_FALSE(after.find(name(85)));
}

}  // namespace
}  // namespace retort
