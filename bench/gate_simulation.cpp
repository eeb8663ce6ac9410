// How often the promotion gate passes a challenger that is worse by just the margin, and one that is no worse, beside
// the power by formula. Prints the tables of docs/operations.md, "The gate's error rates".
//   gate_simulation [--trials 5000] [--threads 2] [--table all]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bench/simulation.h"
#include "registry/paired.h"
#include "tests/registry/pairs.h"

namespace retort {
namespace {

constexpr double kMargin = 0.05;
int trials = 5000, threads = 2;

/// The share of trials in which "no worse by the margin" is shown.
double shown(size_t rows, double gain, double loss, bool exact) {
  std::mutex mutex;
  std::map<std::pair<int64_t, int64_t>, bool> known;
  std::atomic<int> count = 0;
  for_trials(trials, threads, [&](uint64_t trial) {
    const Discordant pairs = drawn_pairs(rows, gain, loss, rows, trial);
    const std::pair key{pairs.gains, pairs.losses};
    {
      const std::lock_guard lock(mutex);
      if (const auto at = known.find(key); at != known.end()) {
        count += at->second;
        return;
      }
    }
    // 1.6449: the standard normal's 95 % quantile.
    const bool passes =
        exact ? exact_above_p_value(pairs, -kMargin) <= kAlpha : paired_score(pairs, -kMargin) >= 1.6449;
    count += passes;
    const std::lock_guard lock(mutex);
    known[key] = passes;
  });
  return static_cast<double>(count) / trials;
}

/// Scores' differences, drawn with a mean of `mean`.
struct Scores {
  const char* name;
  std::vector<double> (*draw)(size_t rows, double mean, uint64_t trial);
  std::optional<double> range;  ///< the largest difference that there can be, as far as the gate knows
};
const Scores kScores[] = {
    {"normal", [](size_t rows, double mean, uint64_t trial) { return drawn_differences(rows, mean, 0.3, rows, trial); },
     std::nullopt},
    {"a long tail of losses",
     [](size_t rows, double mean, uint64_t trial) {
       std::vector<double> sample = drawn_skewed(rows, 0, rows, trial);
       for (double& x : sample) x = mean + 0.15 * x;
       return sample;
     },
     std::nullopt},
    {"2 % of rows lose 1",
     [](size_t rows, double mean, uint64_t trial) {
       std::vector<double> sample = drawn_rare_losses(rows, 0.02, rows, trial);
       const std::vector<double> others = drawn_differences(rows, (mean + 0.02) / 0.98, 0.1, rows + 1, trial);
       for (size_t i = 0; i < rows; ++i)
         if (sample[i] == 0) sample[i] = others[i];
       return sample;
     },
     std::nullopt},
    {"the same, of scores from 0 to 1",
     [](size_t rows, double mean, uint64_t trial) { return kScores[2].draw(rows, mean, trial); }, 1.0},
};

struct Shown {
  double by_bootstrap = 0, by_both = 0;
};
/// What judge_promotion rests on, of scores.
Shown shown_scores(const Scores& scores, size_t rows, double mean) {
  std::atomic<int> bootstrap = 0, both = 0;
  const int count = trials / 10;
  for_trials(count, threads, [&](uint64_t trial) {
    const std::vector<double> sample = scores.draw(rows, mean, trial);
    if (PairedBootstrap(sample, 1000, trial).above_p_value(-kMargin) > kAlpha) return;
    ++bootstrap;
    const auto [worst, best] = std::minmax_element(sample.begin(), sample.end());
    const BoundedMean bounded(sample, scores.range ? -*scores.range : *worst, scores.range ? *scores.range : *best,
                              1000, trial + 1);
    both += bounded.above_p_value(-kMargin) <= kAlpha;
  });
  return {static_cast<double>(bootstrap) / count, static_cast<double>(both) / count};
}

double upper(double p, int n) { return quantile(complement(boost::math::binomial(n, p), 0.005)) / n; }

void exact_table() {
  fmt::print(
      "Outcomes 0 or 1, margin {}, alpha {}: {} pairs of models a cell; an exact level of {} stays below {:.4f}.\n\n",
      kMargin, kAlpha, trials, kAlpha, upper(kAlpha, trials));
  fmt::print(
      "| rows | challenger alone right | worse by the margin: promoted | the same by Tango's score without exactness | "
      "as good: "
      "promoted | by the formula |\n|---|---|---|---|---|---|\n");
  for (size_t rows : {50, 100, 200, 500, 1000}) {
    for (double gain : {0.01, 0.05, 0.1}) {
      fmt::print("| {} | {} | {:.4f} | {:.4f} | {:.3f} | {:.3f} |\n", rows, gain,
                 shown(rows, gain, gain + kMargin, true), shown(rows, gain, gain + kMargin, false),
                 shown(rows, gain, gain, true),
                 power_of_rows(static_cast<int64_t>(rows), power_terms(gain, gain, kMargin), kAlpha));
      std::fflush(stdout);
    }
  }
}

void scores_table() {
  fmt::print(
      "Scores, margin {}, alpha {}: {} pairs of models a cell; an exact level of {} stays below {:.4f}. The gate gives "
      "no verdict of fewer than 50 rows.\n\n"
      "| differences | rows | worse by the margin: promoted | by the bootstrap alone | as good: promoted "
      "|\n|---|---|---|---|---|\n",
      kMargin, kAlpha, trials / 10, kAlpha, upper(kAlpha, trials / 10));
  for (const Scores& scores : kScores) {
    for (size_t rows : {20, 50, 100, 200, 500}) {
      const Shown worse = shown_scores(scores, rows, -kMargin);
      fmt::print("| {} | {} | {:.4f} | {:.4f} | {:.3f} |\n", scores.name, rows, worse.by_both, worse.by_bootstrap,
                 shown_scores(scores, rows, 0).by_both);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("error rates of the promotion gate");
  app.add_option("--trials", retort::trials);
  app.add_option("--threads", retort::threads);
  std::string table = "all";
  app.add_option("--table", table)->check(CLI::IsMember({"exact", "scores", "all"}));
  CLI11_PARSE(app, argc, argv);
  if (table != "scores") retort::exact_table();
  if (table == "all") fmt::print("\n");
  if (table != "exact") retort::scores_table();
}
