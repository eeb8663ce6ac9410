// What `drift check` runs, on rows like those of texts: hashed tokens through a calibrated profile.
#include "monitor/drift_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include "core/rng.h"

namespace retort {
namespace {

Profile build(std::span<const RowMeasure> rows) {
  Profile profile;
  profile.identity = {"m.gguf", std::string(64, 'a'), "t", "k", 64, 0.5, 7, 32};
  for (const RowMeasure& row : rows) profile.add(row);
  return profile;
}

/// Rows of 64 tokens by Zipf's law from 20,000, three in ten of them a repeat of one of the row's own; `moved` of the
/// tokens come from a vocabulary of another domain.
class Texts {
 public:
  explicit Texts(uint64_t stream) : rng_(71, stream) {
    double sum = 0;
    for (int id = 0; id < 20000; ++id) below_.push_back(sum += 1 / (id + 2.7));
  }
  std::vector<RowMeasure> rows(size_t n, double moved = 0) {
    std::vector<RowMeasure> rows(n);
    for (RowMeasure& row : rows) {
      std::vector<size_t> ids;
      std::map<int32_t, int64_t> counts;
      for (size_t t = 0; t < 64; ++t) {
        const bool repeats = t > 0 && rng_.uniform() < 0.3;
        const auto drawn =
            std::upper_bound(below_.begin(), below_.end(), rng_.uniform() * below_.back()) - below_.begin();
        const bool other = rng_.uniform() < moved;
        ids.push_back(repeats ? ids[rng_.below(t)] : static_cast<size_t>(drawn) + (other ? 20000 : 0));
        ++counts[static_cast<int32_t>((ids.back() * 0x9E3779B97F4A7C15) >> 52)];  // 4,096 buckets
      }
      row.counts["token_distribution"] = {counts.begin(), counts.end()};
    }
    return rows;
  }

 private:
  Rng rng_;
  std::vector<double> below_;
};

TEST(DriftCheck, TokensOfUsualSlotsOfAnySizeAreUsual) {
  // Slot sizes between and beyond the calibrated ones, and a baseline so small that calibration has fewer rows left.
  const std::vector<size_t> sizes = {20, 32, 60, 90, 300, 600};
  constexpr size_t kBaselines = 20, kSlots = 20;
  DriftOptions options;
  options.calibration = {.resamples = 199, .block = 1};
  const std::vector<std::string> kinds = {"jensen_shannon", "psi", "chi_square"};
  for (const std::string& kind : kinds) options.detectors.emplace_back().kind = kind;
  std::map<std::pair<std::string, size_t>, int> first, both;
  for (uint64_t b = 1; b <= kBaselines; ++b) {
    Texts texts(b);
    const auto usual = texts.rows(500);
    Profile baseline = build(usual);
    calibrate(baseline, usual, options);
    for (size_t size : sizes) {
      for (size_t s = 0; s < kSlots; ++s) {
        const SlotCheck check = check_slot(baseline, build(texts.rows(size)), options);
        ASSERT_EQ(check.checks.size(), kinds.size());
        for (const SignalCheck& one : check.checks) {
          const bool significant = one.detection.p_value <= 0.05;
          first[{one.detection.name, size}] += significant;
          both[{one.detection.name, size}] += significant && one.detection.effect > one.detection.limit;
        }
      }
    }
  }
  const boost::math::binomial chance(kBaselines * kSlots, 0.05);
  for (const auto& [what, count] : first) {
    EXPECT_GE(count, quantile(chance, 0.0005)) << what.first << " of " << what.second << " rows";
    EXPECT_LE(count, quantile(complement(chance, 0.0005))) << what.first << " of " << what.second << " rows";
    if (what.second >= 60) {
      EXPECT_LE(both[what], 8) << what.first << " of " << what.second << " rows: hardly ever both keys";
    }
  }
}

TEST(DriftCheck, TokensOfAnotherDomainTurnBothKeys) {
  Texts texts(99);
  const auto usual = texts.rows(500);
  Profile baseline = build(usual);
  DriftOptions options;
  options.calibration = {.resamples = 199, .block = 1};
  calibrate(baseline, usual, options);
  for (size_t size : {60, 90, 300}) EXPECT_TRUE(check_slot(baseline, build(texts.rows(size, 0.3)), options).two_keys());
}

}  // namespace
}  // namespace retort
