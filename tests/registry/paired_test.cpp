// The gate's statistics against scipy and statsmodels (tests/golden/make_gate_statistics.py), and their error rates.
#include "registry/paired.h"

#include <gtest/gtest.h>

#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "core/json.h"
#include "core/rng.h"
#include "tests/registry/pairs.h"

namespace retort {
namespace {

const Json& golden() {
  static const Json json = read_json(RETORT_GOLDEN "/gate_statistics.json");
  return json;
}

Discordant pairs_of(const Json& row) { return {row[0].get<int64_t>(), row[1].get<int64_t>(), row[2].get<int64_t>()}; }

TEST(Paired, CountsTheRowsOnWhichTheModelsDiffer) {
  const Discordant pairs = discordant_of(std::vector<double>{1, 0, 1, 0, 1}, std::vector<double>{0, 1, 1, 0, 0});
  EXPECT_EQ(pairs.gains, 1);
  EXPECT_EQ(pairs.losses, 2);
  EXPECT_EQ(pairs.rows, 5);
}

TEST(Paired, McNemarAsStatsmodels) {
  for (const Json& row : golden()["mcnemar"])
    EXPECT_NEAR(mcnemar_p_value(pairs_of(row)), row[3].get<double>(), 1e-12) << row.dump();
}

TEST(Paired, ScoreAsByNumericalMaximisation) {
  for (const Json& row : golden()["score"])
    EXPECT_NEAR(paired_score(pairs_of(row), row[3].get<double>()), row[4].get<double>(), 1e-4) << row.dump();
}

TEST(Paired, ExactPValueAsSummedOverEveryTable) {
  for (const Json& row : golden()["exact"])
    EXPECT_NEAR(exact_above_p_value(pairs_of(row), row[3].get<double>()), row[4].get<double>(), 2e-6) << row.dump();
}

TEST(Paired, BelowIsAboveWithTheModelsExchanged) {
  EXPECT_EQ(exact_below_p_value({2, 9, 60}, -0.02), exact_above_p_value({9, 2, 60}, 0.02));
  EXPECT_LT(exact_below_p_value({0, 30, 100}, -0.05), 1e-6);
  EXPECT_GT(exact_below_p_value({30, 0, 100}, -0.05), 0.99);
}

TEST(Paired, ScoreRisesInGainsAndFallsInLosses) {
  // What the search for the rejection region and the supremum at the margin rest on.
  for (double delta : {-0.3, -0.1, -0.02, 0.05}) {
    for (int64_t losses = 0; losses <= 25; ++losses) {
      for (int64_t gains = 0; gains + losses < 25; ++gains) {
        EXPECT_GE(paired_score({gains + 1, losses, 25}, delta), paired_score({gains, losses, 25}, delta) - 1e-12);
        EXPECT_LE(paired_score({gains, losses + 1, 25}, delta), paired_score({gains, losses, 25}, delta) + 1e-12);
      }
    }
  }
}

TEST(Paired, BoundsAreWhereTheExactTestTurns) {
  const Discordant pairs{6, 4, 80};
  const auto [low, high] = exact_difference_bounds(pairs, 0.05);
  EXPECT_LE(exact_above_p_value(pairs, low), 0.05);
  EXPECT_GT(exact_above_p_value(pairs, low + 1e-4), 0.05);
  EXPECT_LE(exact_below_p_value(pairs, high), 0.05);
  EXPECT_GT(exact_below_p_value(pairs, high - 1e-4), 0.05);
}

TEST(Paired, ClopperPearsonAsStatsmodels) {
  for (const Json& row : golden()["clopper_pearson"]) {
    const auto [low, high] = clopper_pearson(row[0].get<int64_t>(), row[1].get<int64_t>(), row[2].get<double>());
    EXPECT_NEAR(low, row[3].get<double>(), 1e-10) << row.dump();
    EXPECT_NEAR(high, row[4].get<double>(), 1e-10) << row.dump();
  }
}

TEST(Paired, HolmAsStatsmodels) {
  const std::vector<double> adjusted = holm(golden()["holm"]["p"].get<std::vector<double>>());
  for (size_t i = 0; i < adjusted.size(); ++i)
    EXPECT_NEAR(adjusted[i], golden()["holm"]["adjusted"][i].get<double>(), 1e-12);
}

TEST(Paired, BootstrapAsScipy) {
  for (const Json& sample : golden()["bootstrap"]) {
    const PairedBootstrap bootstrap(sample["differences"].get<std::vector<double>>(), 200'000, 3);
    for (const Json& row : sample["bounds"]) {
      const double alpha = row[0].get<double>();
      const auto [low, high] = bootstrap.bounds(alpha);
      const double noise = 0.04 * bootstrap.deviation() / std::sqrt(double(sample["differences"].size()));
      EXPECT_NEAR(low, row[1].get<double>(), noise) << sample["name"];
      EXPECT_NEAR(high, row[2].get<double>(), noise) << sample["name"];
      // The p-value is the level at which the bound arrives.
      EXPECT_NEAR(bootstrap.above_p_value(low), alpha, 2e-4);
      EXPECT_NEAR(bootstrap.below_p_value(high), alpha, 2e-4);
    }
  }
}

/// Counts that a binomial leaves with probability 0.001 at either end, as shares.
std::pair<double, double> band(double p, int trials) {
  const boost::math::binomial binomial(trials, p);
  return {quantile(binomial, 0.001) / trials, quantile(complement(binomial, 0.001)) / trials};
}

/// How often "no worse by 0.05" is shown at level 0.05.
double shown(size_t rows, double gain, double loss, int trials, uint64_t seed) {
  std::map<std::pair<int64_t, int64_t>, bool> known;
  int shown = 0;
  for (int trial = 1; trial <= trials; ++trial) {
    const Discordant pairs = drawn_pairs(rows, gain, loss, seed, static_cast<uint64_t>(trial));
    const auto [at, fresh] = known.try_emplace({pairs.gains, pairs.losses});
    if (fresh) at->second = exact_above_p_value(pairs, -0.05) <= 0.05;
    shown += at->second;
  }
  return static_cast<double>(shown) / trials;
}

TEST(Paired, TypeOneErrorIsAtMostAlphaAtTheMargin) {
  const int trials = 2000;
  for (size_t rows : {60, 300})
    for (double gain : {0.0, 0.05})
      EXPECT_LE(shown(rows, gain, gain + 0.05, trials, rows), band(0.05, trials).second) << rows << " " << gain;
}

TEST(Paired, PowerIsThatOfTheFormula) {
  const int trials = 2000;
  for (double share : {0.1, 0.2}) {
    const PowerTerms terms = power_terms(share / 2, share / 2, 0.05);
    const auto rows = rows_for_power(terms, 0.05, 0.8);
    ASSERT_TRUE(rows);
    EXPECT_GE(power_of_rows(*rows, terms, 0.05), 0.8);
    EXPECT_LT(power_of_rows(*rows - 1, terms, 0.05), 0.8);
    const auto [low, high] = band(0.8, trials);
    const double power = shown(static_cast<size_t>(*rows), share / 2, share / 2, trials, 7);
    EXPECT_GE(power, low - 0.02) << share;  // the exact test has steps, the formula none
    EXPECT_LE(power, high + 0.02) << share;
  }
}

TEST(Paired, BootstrapsErrorAndPowerAreThoseOfTheFormula) {
  const int trials = 1000;
  const size_t rows = 100;
  auto shown = [&](double mean) {
    int count = 0;
    for (int trial = 1; trial <= trials; ++trial) {
      const std::vector<double> sample = drawn_differences(rows, mean, 0.3, 11, static_cast<uint64_t>(trial));
      count += PairedBootstrap(sample, 1000, static_cast<uint64_t>(trial)).above_p_value(-0.05) <= 0.05;
    }
    return static_cast<double>(count) / trials;
  };
  EXPECT_LE(shown(-0.05), band(0.05, trials).second);
  const double expected = power_of_rows(rows, {0.05, 0.02, 0.09, 0.09}, 0.05);
  EXPECT_GE(shown(0.02), band(expected, trials).first);
  EXPECT_LE(shown(0.02), band(expected, trials).second);
}

TEST(Paired, BoundedMeanOfSharesIsClopperAndPearsons) {
  for (const auto& [right, rows] : {std::pair{0, 50}, {3, 40}, {40, 40}, {70, 200}}) {
    std::vector<double> values(static_cast<size_t>(rows), 0);
    std::fill_n(values.begin(), right, 1.0);
    const BoundedMean mean(values, 0, 1, 100'000, 5);
    const auto [low, high] = mean.bounds(0.05);
    const ConfidenceBounds expected = clopper_pearson(right, rows, 0.05);
    EXPECT_NEAR(low, expected.low, 0.002) << right << " of " << rows;
    EXPECT_NEAR(high, expected.high, 0.002) << right << " of " << rows;
    EXPECT_NEAR(mean.above_p_value(low), 0.05, 1e-3 + (right == 0)) << right << " of " << rows;
    EXPECT_NEAR(mean.below_p_value(high), 0.05, 1e-3 + (right == rows)) << right << " of " << rows;
  }
  EXPECT_THROW(BoundedMean({}, 0, 1, 100, 1), Error);
  EXPECT_THROW(BoundedMean(std::vector<double>{2}, 0, 1, 100, 1), Error);
}

TEST(Paired, BoundedMeanHoldsItsLevelWhereTheBootstrapDoesNot) {
  const int trials = 1000;
  const auto rate = [&](auto&& p_value) {
    int count = 0;
    for (uint64_t trial = 1; trial <= static_cast<uint64_t>(trials); ++trial) count += p_value(trial) <= 0.05;
    return static_cast<double>(count) / trials;
  };
  // One row in twenty loses everything, at the margin: often none of them is seen.
  for (const size_t rows : {20, 50, 100}) {
    const double limit = band(0.05, trials).second;
    EXPECT_LE(rate([&](uint64_t trial) {
                return BoundedMean(drawn_rare_losses(rows, 0.05, rows, trial), -1, 1, 1000, trial).above_p_value(-0.05);
              }),
              limit)
        << rows;
  }
  EXPECT_GT(rate([&](uint64_t trial) {
              return PairedBootstrap(drawn_rare_losses(20, 0.05, 20, trial), 1000, trial).above_p_value(-0.05);
            }),
            0.3)
      << "else this test shows nothing";
}

TEST(Paired, PowerCountsTheRowThatWasNotSeen) {
  // Of rows that are all alike, between -1 and 1: as many as Clopper and Pearson need.
  const auto rows = rows_for_power({.margin = 0.05, .span = 1}, 0.05, 0.8);
  ASSERT_TRUE(rows);
  EXPECT_LE(clopper_pearson(0, *rows, 0.05).high, 0.05);
  EXPECT_GT(clopper_pearson(0, *rows - 3, 0.05).high, 0.05);
  const PowerTerms terms{0.05, 0, 0.09, 0.09, 1};
  const auto more = rows_for_power(terms, 0.05, 0.8);
  EXPECT_GT(*more, *rows_for_power({0.05, 0, 0.09, 0.09}, 0.05, 0.8));
  EXPECT_GE(power_of_rows(*more, terms, 0.05), 0.8);
  EXPECT_LT(power_of_rows(*more - 2, terms, 0.05), 0.8);
}

TEST(Paired, NoNumberOfRowsShowsWhatIsNotSo) {
  EXPECT_FALSE(rows_for_power({0.02, -0.02, 0.1, 0.1}, 0.05, 0.8));
  EXPECT_FALSE(rows_for_power({0.02, -0.03, 0.1, 0.1}, 0.05, 0.8));
}

}  // namespace
}  // namespace retort
