// The calibrated null: block lengths, resamples, and the rate of p-values read from it.
#include "monitor/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "monitor/detector.h"
#include "tests/monitor/normal.h"

namespace retort {
namespace {

/// x_t = rho x_t-1 + e_t.
std::vector<double> autoregression(Rng& rng, size_t rows, double rho) {
  std::vector<double> series(rows);
  double last = normal(rng) / std::sqrt(1 - rho * rho);
  for (double& value : series) value = last = rho * last + normal(rng);
  return series;
}

TEST(Calibration, BlocksAreAsLongAsThePaperSays) {
  // Politis and White's length for an AR(1) is (1.5 (2 rho / (1 - rho^2))^2 n)^(1/3).
  Rng rng(1);
  for (double rho : {0.3, 0.6}) {
    double mean = 0;
    for (int i = 0; i < 10; ++i) mean += static_cast<double>(block_length(autoregression(rng, 10000, rho))) / 10;
    const double expected = std::cbrt(1.5 * std::pow(2 * rho / (1 - rho * rho), 2) * 10000);
    EXPECT_NEAR(mean, expected, 0.25 * expected) << rho;
  }
  int64_t white = 0;
  for (int i = 0; i < 20; ++i) white += block_length(autoregression(rng, 1000, 0)) <= 4;
  EXPECT_GE(white, 16);
  EXPECT_EQ(block_length(std::vector<double>(100, 2.5)), 1);
  EXPECT_EQ(block_length(std::vector<double>{1, 2}), 1);
  EXPECT_EQ(block_length({}), 1);
  EXPECT_THROW(block_length(std::vector<double>(20, NAN)), Error);
}

TEST(Calibration, SplitsAreBlocksOfConsecutiveRowsAndShareNone) {
  const BlockSplit split = split_blocks(100, 35, 7, 5, 1);
  ASSERT_EQ(split.current.size(), 35U);
  std::set<size_t> all(split.current.begin(), split.current.end());
  all.insert(split.reference.begin(), split.reference.end());
  EXPECT_EQ(all.size(), 100U);
  EXPECT_EQ(split.reference.size(), 65U);
  int apart = 0;
  for (size_t i = 1; i < 35; ++i) apart += split.current[i] != (split.current[i - 1] + 1) % 100;
  EXPECT_GE(apart, 3);  // five blocks, or six with the short one, of which some may be neighbours
  EXPECT_LE(apart, 5);
  EXPECT_EQ(split.current, split_blocks(100, 35, 7, 5, 1).current);
  EXPECT_NE(split.current, split_blocks(100, 35, 7, 5, 2).current);
  std::set<size_t> seen;
  for (uint64_t stream = 1; stream <= 50; ++stream)
    for (size_t row : split_blocks(100, 35, 7, 5, stream).current) seen.insert(row);
  EXPECT_EQ(seen.size(), 100U);  // the ends too
  EXPECT_THROW(split_blocks(5, 5, 1, 1, 1), Error);
  EXPECT_THROW(split_blocks(5, 0, 1, 1, 1), Error);
  EXPECT_THROW(split_blocks(5, 2, 0, 1, 1), Error);
}

TEST(Calibration, WhatOnlyOneRowHasIsNotUsual) {
  // Each row brings a word of its own, as texts do; the statistic is the share of words that the baseline lacks.
  const NullTable table = calibrate_null(100, 100, 20, 0,
                                         [](std::span<const size_t> reference, std::span<const size_t> current) {
                                           const std::set<size_t> known(reference.begin(), reference.end());
                                           double strange = 0;
                                           for (size_t row : current) strange += !known.contains(row);
                                           return strange / static_cast<double>(current.size());
                                         },
                                         {.resamples = 99});
  EXPECT_EQ(table.lower.front(), 1);
}

/// Null of |difference of means| of a series.
NullTable null_of(const std::vector<double>& series, size_t n, size_t m, const Resampling& resampling) {
  const auto mean = [&](std::span<const size_t> rows) {
    double sum = 0;
    for (size_t row : rows) sum += series[row];
    return sum / static_cast<double>(rows.size());
  };
  return calibrate_null(
      series.size(), n, m, 0.5,
      [&](std::span<const size_t> a, std::span<const size_t> b) { return std::abs(mean(a) - mean(b)); }, resampling);
}

TEST(Calibration, PValuesCountTheResamples) {
  // A statistic that takes each of 0 ... 199 once.
  double next = 0;
  const NullTable table = calibrate_null(
      10, 5, 5, 1, [&](std::span<const size_t>, std::span<const size_t>) { return next++; }, {.resamples = 200});
  EXPECT_EQ(table.upper.size(), 20U);
  EXPECT_NEAR(table.p_value(1000, 5), 1.0 / 201, 1e-12);
  EXPECT_NEAR(table.p_value(199, 5), 2.0 / 201, 1e-12);
  EXPECT_NEAR(table.p_value(190.5, 5), 10.0 / 201, 1e-12);
  EXPECT_NEAR(table.p_value(180, 5), 21.0 / 201, 1e-12);
  EXPECT_EQ(table.p_value(-1, 5), 1);
  for (double statistic : {0.5, 10.0, 77.0, 100.0, 179.5}) {  // never below the count, at most a twentieth above
    const double exact = (1 + 199 - std::floor(statistic - 1e-9)) / 201;
    EXPECT_GE(table.p_value(statistic, 5), exact - 0.005) << statistic;
    EXPECT_LE(table.p_value(statistic, 5), exact + 0.06) << statistic;
  }
  for (double alpha : {0.01, 0.05, 0.1}) {
    const double limit = table.limit(alpha, 5);
    EXPECT_LE(table.p_value(limit, 5), alpha);
    EXPECT_GT(table.p_value(limit - 1, 5), alpha) << alpha;
  }
  // Of order 1: at half the sizes' sum of inverses, half the statistic is as rare.
  EXPECT_NEAR(table.limit(0.05, 5) * (0.2 + 1.0 / 15) / 0.4, table.limit(0.05, 15), 1e-9);
  EXPECT_THROW(table.limit(0.2, 5), Error);
  EXPECT_THROW(table.limit(0.001, 5), Error);
  EXPECT_THROW(table.p_value(1, 0), Error);
}

TEST(Calibration, TablesComeBackFromJson) {
  Rng rng(3);
  const NullTable table = null_of(normals(rng, 200), 100, 50, {.resamples = 100, .block = 4});
  const NullTable again = NullTable::from_json(parse_json(table.to_json().dump(), "t"), "t");
  EXPECT_EQ(again.upper, table.upper);
  EXPECT_EQ(again.lower, table.lower);
  EXPECT_EQ(again.p_value(0.3, 60), table.p_value(0.3, 60));
  for (const char* key : {"reference", "current", "resamples", "lower", "upper"}) {
    Json damaged = table.to_json();
    damaged[key] = key[0] == 'l' || key[0] == 'u' ? Json::array({1.0}) : Json(-1);
    EXPECT_THROW(NullTable::from_json(damaged, "t"), Error) << key;
  }
  EXPECT_THROW(null_of({1, 2}, 0, 1, {}), Error);
  EXPECT_THROW(null_of({1, 2}, 1, 1, {.resamples = 5}), Error);
}

TEST(Calibration, BetweenTwoSizesTheNullLiesBetweenTheirs) {
  // A statistic that is 1 / rows, whatever its order says, and twice that in every other resample.
  const auto table = [](size_t rows, double order) {
    int64_t next = 0;
    return calibrate_null(10000, 1000, rows, order,
                          [&](std::span<const size_t>, std::span<const size_t> current) {
                            return (1.0 + static_cast<double>(next++ % 2)) / static_cast<double>(current.size());
                          },
                          {.resamples = 20});
  };
  const std::vector<NullTable> flat = {table(400, 0), table(50, 0), table(100, 0)};
  for (int64_t rows : {50, 60, 99, 100, 250, 400}) {
    const NullTable null = null_at(flat, rows);
    EXPECT_EQ(null.current, rows);
    EXPECT_NEAR(null.lower.front(), 1.0 / static_cast<double>(rows), 1e-12) << rows;
    EXPECT_NEAR(null.upper.back(), 2.0 / static_cast<double>(rows), 1e-12) << rows;
    EXPECT_NEAR(null.median(), 2.0 / static_cast<double>(rows), 1e-12) << rows;
  }
  EXPECT_EQ(null_at(flat, 30).upper, flat[1].upper);
  EXPECT_EQ(null_at(flat, 900).upper, flat[0].upper);
  // Beyond the outermost table its order brings it to the size.
  const std::vector<NullTable> law = {table(50, 1)};
  EXPECT_NEAR(null_at(law, 200).upper.back(), 2.0 / 50 * (0.001 + 1.0 / 200) / (0.001 + 1.0 / 50), 1e-12);
  EXPECT_THROW(null_at({}, 10), Error);
}

TEST(Calibration, DependentRowsNeedBlocks) {
  // Streams with neighbours correlated at 0.6: rows taken for independent cry wolf, blocks keep near the level.
  const int trials = 150;
  int independent = 0, blocks = 0;
  for (uint64_t trial = 1; trial <= trials; ++trial) {
    Rng rng(31, trial);
    const std::vector<double> series = autoregression(rng, 1000, 0.6);
    std::vector<double> fresh = autoregression(rng, 200, 0.6);
    double statistic = 0;
    for (double value : fresh) statistic += value / 200;
    for (double value : series) statistic -= value / 1000;
    const NullTable rows = null_of(series, 1000, 200, {.resamples = 199});
    const NullTable block = null_of(series, 1000, 200, {.resamples = 199, .block = block_length(series)});
    independent += rows.p_value(std::abs(statistic), 200) <= 0.05;
    blocks += block.p_value(std::abs(statistic), 200) <= 0.05;
  }
  EXPECT_GT(independent, 30);  // 0.3 expected
  EXPECT_LT(blocks, 20);       // 0.05 to 0.08 expected
}

TEST(Calibration, ANullOfOneSizeServesAnother) {
  // PSI's null, calibrated for 200 rows, read for 400.
  Rng rng(5);
  const std::vector<double> baseline = normals(rng, 2000);
  const DetectorOptions options{.kind = "psi", .limit = {}, .gamma = {}, .p_value = false};
  const auto take = [&](std::span<const size_t> rows) {
    std::vector<double> sample;
    for (size_t row : rows) sample.push_back(baseline[row]);
    return values_of(sample);
  };
  const auto statistic = [&](std::span<const size_t> a, std::span<const size_t> b) {
    return compare(take(a), take(b), options).statistic;
  };
  const NullTable table =
      calibrate_null(2000, 2000, 200, detector_kind("psi").order, statistic, {.resamples = 400, .seed = 2});
  const Values reference = values_of(baseline);
  int rejected = 0;
  const int trials = 400;
  for (int t = 0; t < trials; ++t)
    rejected += table.p_value(compare(reference, values_of(normals(rng, 400)), options).statistic, 400) <= 0.05;
  EXPECT_NEAR(rejected / 400.0, 0.05, 0.045);
}

}  // namespace
}  // namespace retort
