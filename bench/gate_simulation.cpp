// How often the promotion gate passes a challenger that is worse by just the margin, and one that is no worse, beside
// the power by formula. Prints the tables of docs/operations.md, "The gate's error rates".
//   gate_simulation [--trials 5000] [--threads 2]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/math/distributions/binomial.hpp>
#include <map>
#include <mutex>

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

double shown_by_bootstrap(size_t rows, double mean) {
  std::atomic<int> count = 0;
  for_trials(trials / 10, threads, [&](uint64_t trial) {
    const std::vector<double> sample = drawn_differences(rows, mean, 0.3, rows, trial);
    count += PairedBootstrap(sample, 1000, trial).above_p_value(-kMargin) <= kAlpha;
  });
  return static_cast<double>(count) / (trials / 10);
}

double upper(double p, int n) { return quantile(complement(boost::math::binomial(n, p), 0.005)) / n; }

void run() {
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
  fmt::print(
      "\nScores with a standard deviation of 0.3 of their differences, by the bootstrap: {} a cell; an exact level of "
      "{} "
      "stays below {:.4f}.\n\n| rows | worse by the margin: promoted | as good: promoted | by the formula "
      "|\n|---|---|---|---|\n",
      trials / 10, kAlpha, upper(kAlpha, trials / 10));
  for (size_t rows : {50, 100, 200, 500})
    fmt::print("| {} | {:.4f} | {:.3f} | {:.3f} |\n", rows, shown_by_bootstrap(rows, -kMargin),
               shown_by_bootstrap(rows, 0),
               power_of_rows(static_cast<int64_t>(rows), {kMargin, 0, 0.09, 0.09}, kAlpha));
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("error rates of the promotion gate");
  app.add_option("--trials", retort::trials);
  app.add_option("--threads", retort::threads);
  CLI11_PARSE(app, argc, argv);
  retort::run();
}
