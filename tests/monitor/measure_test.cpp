// Rows are measured once, and what is remembered of them stays small.
#include "monitor/measure.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "models/causal_lm.h"
#include "models/served.h"
#include "monitor/measure_cache.h"
#include "tests/core/support.h"
#include "tests/monitor/f32_model.h"

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

TEST(Measure, BitsAByteAndStatesAreWhatTheModelSays) {
  const std::string key = "the project's key, 32 bytes long";
  std::vector<TrafficRow> rows(3);
  const char* const texts[] = {"The kettle is on the stove.",
                               "naïve 𒀀 words, and more of them than are read: one two three",
                               "for (i = 0; i < 9; ++i) x[i] *= alpha;"};
  for (size_t i = 0; i < rows.size(); ++i) rows[i].text = texts[i];
  Measurer measurer(f32_model(),
                    {.signals = {"bits_per_byte", "embedding"}, .max_tokens = 12, .key = key, .cache = false});
  const std::vector<RowMeasure> measures = measurer.measure(rows);
  const auto served = ServedModel::open(f32_model(), {.exact = true});
  const auto trained = CausalLM::load(*Checkpoint::open(f32_model()), {});
  const RandomFeatures features(static_cast<size_t>(measurer.dimensions()), measurer.gamma(), kFrequencies,
                                measurer.feature_seed());
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<int32_t> ids = smollm2().encode(rows[i].text, false, true);
    if (ids.size() > 12) ids.resize(12);
    const at::Tensor log_p = served->logits(ids).to(at::kDouble).log_softmax(1);
    double nats = 0;
    for (size_t t = 1; t < ids.size(); ++t) nats -= log_p[static_cast<int64_t>(t) - 1][ids[t]].item<double>();
    const auto bytes = static_cast<double>(smollm2().decode(std::span(ids).subspan(1)).size());
    const double bits = measures[i].numbers.at("bits_per_byte");
    EXPECT_NEAR(bits, nats / std::log(2.0) / bytes, 1e-4 * bits) << i;
    // The trainer's own model, in LibTorch.
    Batch batch;
    batch.ids = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong);
    batch.offsets = {0, static_cast<int64_t>(ids.size())};
    const at::Tensor mean = trained->hidden(batch).to(at::kDouble).mean(0).contiguous();
    std::vector<double> expected(2 * kFrequencies);
    features.add({mean.const_data_ptr<double>(), static_cast<size_t>(mean.numel())}, expected);
    double worst = 0;
    for (size_t f = 0; f < expected.size(); ++f)
      worst = std::max(worst, std::abs(measures[i].features.at("embedding")[f] * kFeatureUnit - expected[f]));
    EXPECT_LT(worst, 1e-3 / std::sqrt(kFrequencies)) << i;
  }
}

}  // namespace
}  // namespace retort
