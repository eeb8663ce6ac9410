// How often `retort drift check` cries wolf: calibrate() and check_slot() on rows that have not changed, at slot sizes
// that are calibrated and between them. Prints a table of docs/drift.md.
//   drift_calibrated [--splits 2000] [--threads 2]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "bench/simulation.h"
#include "monitor/drift_check.h"
#include "tests/monitor/normal.h"

namespace retort {
namespace {

int splits = 2000, threads = 2;

/// Rows with measures like those of FOLDOC's entries under a small model: skewed numbers, a number that is mostly 0,
/// yes and no, 64 tokens by Zipf's law of which three in ten repeat one of the row's, and a state in 16 dimensions.
std::vector<RowMeasure> population(size_t n, const ProfileIdentity& identity) {
  Rng rng(81);
  std::vector<double> zipf;
  double sum = 0;
  for (int id = 0; id < 49152; ++id) zipf.push_back(sum += 1 / (id + 2.7));
  const RandomFeatures features(static_cast<size_t>(identity.dimensions), identity.gamma, kFrequencies,
                                identity.feature_seed);
  std::vector<RowMeasure> rows(n);
  for (RowMeasure& row : rows) {
    row.numbers["bits_per_byte"] = std::exp(0.4 + 0.25 * normal(rng));
    row.numbers["length"] = std::round(std::exp(5.5 + 0.8 * normal(rng)));
    row.numbers["byte_fallback"] = rng.below(10) == 0 ? 0.02 * rng.uniform() : 0;
    row.numbers["accuracy"] = rng.below(10) < 8;
    std::vector<size_t> ids;
    std::map<int32_t, int64_t> counts;
    for (size_t t = 0; t < 64; ++t) {
      const bool repeats = t > 0 && rng.uniform() < 0.3;
      const auto drawn = std::upper_bound(zipf.begin(), zipf.end(), rng.uniform() * zipf.back()) - zipf.begin();
      ids.push_back(repeats ? ids[rng.below(t)] : static_cast<size_t>(drawn));
      ++counts[static_cast<int32_t>((ids.back() * 0x9E3779B97F4A7C15) >> 52)];  // TokenHash::kBuckets
    }
    row.counts["token_distribution"] = {counts.begin(), counts.end()};
    std::vector<double> of_row(2 * kFrequencies);
    features.add(normals(rng, static_cast<size_t>(identity.dimensions)), of_row);
    for (double value : of_row)
      row.features["embedding"].push_back(static_cast<int32_t>(std::lround(value / kFeatureUnit)));
  }
  return rows;
}

struct Count {
  int first = 0, both = 0;
};

/// By signal and detector, for each size of a slot.
using Counts = std::map<std::string, std::vector<Count>>;
constexpr const char* kWhole = "the whole check, default detectors";

void count(const SlotCheck& check, size_t column, size_t columns, Counts& counts) {
  const auto add = [&](const std::string& name, bool first, bool both) {
    std::vector<Count>& row = counts[name];
    row.resize(columns);
    row[column].first += first;
    row[column].both += both;
  };
  std::vector<Detection> usual;  // what a recipe without detectors looks at
  for (const SignalCheck& one : check.checks) {
    const Detection& detection = one.detection;
    const bool first = detection.p_value <= kAlpha;
    add(fmt::format("`{}` `{}`", one.signal, detection.name), first, first && detection.effect > detection.limit);
    for (const DetectorOptions& options : detectors_of({}))
      if (options.kind == detection.name) usual.push_back(detection);
  }
  bool first = false, both = false;
  for (const Verdict& verdict : two_keys(usual, kAlpha)) {
    first |= verdict.significant;
    both |= verdict.alarm();
  }
  add(kWhole, first, both);
}

/// `baselines` of `rows` rows, each calibrated and compared with slots of every size, of other rows of the same kind.
void table(const std::vector<RowMeasure>& all, const ProfileIdentity& identity, size_t rows, int baselines,
           const std::vector<size_t>& sizes) {
  DriftOptions options;
  options.min_rows = 2;
  options.calibration = {.resamples = 199, .block = 1, .sizes = {20, 50, 100, 200, 400, 800}};
  for (const char* kind : {"ks", "jensen_shannon", "psi", "wasserstein", "energy", "chi_square", "mmd"})
    options.detectors.emplace_back().kind = kind;
  const int slots = splits / baselines;
  Counts counts;
  std::mutex mutex;
  for_trials(baselines, threads, [&](uint64_t trial) {
    Rng rng(rows, trial);
    std::vector<size_t> order(all.size());
    std::iota(order.begin(), order.end(), size_t{0});
    rng.shuffle(std::span(order));
    const auto take = [&](size_t from, size_t n) {
      std::vector<RowMeasure> taken;
      for (size_t i = 0; i < n; ++i) taken.push_back(all[order[from + i]]);
      return taken;
    };
    const auto profile_of = [&](const std::vector<RowMeasure>& measures) {
      Profile profile;
      profile.identity = identity;
      for (const RowMeasure& row : measures) profile.add(row);
      return profile;
    };
    DriftOptions seeded = options;
    seeded.calibration.seed = static_cast<int64_t>(trial);
    const std::vector<RowMeasure> usual = take(0, rows);
    Profile baseline = profile_of(usual);
    calibrate(baseline, usual, seeded);
    for (size_t s = 0; s < sizes.size(); ++s) {
      for (int i = 0; i < slots; ++i) {
        const size_t others = all.size() - rows - sizes[s];
        const SlotCheck check = check_slot(baseline, profile_of(take(rows + rng.below(others), sizes[s])), options);
        const std::lock_guard lock(mutex);
        count(check, s, sizes.size(), counts);
      }
    }
  });
  const int trials = slots * baselines;
  const boost::math::binomial chance(trials, kAlpha);
  const double low = quantile(chance, 0.005), high = quantile(complement(chance, 0.005));
  fmt::print("\n{} rows in the baseline, {} slots a cell against {} baselines; the band of {} is {:.3f} to {:.3f}.\n\n",
             rows, trials, baselines, kAlpha, low / trials, high / trials);
  fmt::print("| rows of the slot |");
  for (size_t size : sizes) fmt::print(" {} |", size);
  fmt::print("\n|---|");
  for (size_t i = 0; i < sizes.size(); ++i) fmt::print("---|");
  fmt::print("\n");
  int cells = 0, inside = 0;
  for (const auto& [name, row] : counts) {
    fmt::print("| {} |", name);
    for (const Count& cell : row) {
      const char* mark = cell.first < low ? " **below**" : cell.first > high ? " **above**" : "";
      if (name != kWhole) {
        ++cells;
        inside += *mark == 0;
      } else if (cell.first <= high) {
        mark = "";  // at most alpha is what the first key of a check promises
      }
      fmt::print(" {:.3f}{} / {:.3f} |", static_cast<double>(cell.first) / trials, mark,
                 static_cast<double>(cell.both) / trials);
    }
    fmt::print("\n");
  }
  fmt::print("\nInside the band: {} of {}.\n", inside, cells);
  std::fflush(stdout);
}

void run() {
  const ProfileIdentity identity{"m.gguf", std::string(64, 'a'), "t", "k", 64, 1.0 / 32, 7, 16};
  const std::vector<RowMeasure> all = population(20000, identity);
  // Slots of one baseline share its luck, so there are as many baselines as a few minutes allow.
  table(all, identity, 500, splits / 8, {20, 35, 50, 75, 100, 150, 300, 600});
  table(all, identity, 2000, splits / 20, {20, 35, 50, 75, 100, 150, 300, 600});
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("False alarms of what `retort drift check` runs");
  app.add_option("--splits", retort::splits, "slots a cell")->check(CLI::Range(40, 1000000));
  app.add_option("--threads", retort::threads)->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);
  retort::run();
  return 0;
}
