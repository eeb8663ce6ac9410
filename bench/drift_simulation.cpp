// How often the drift detectors raise a false alarm and how often they see a change, beside the rules of other tools.
// Prints tables of docs/drift.md.
//   drift_simulation [--splits 2000] [--threads 2]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <functional>
#include <numeric>

#include "bench/simulation.h"
#include "monitor/calibration.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"
#include "tests/monitor/normal.h"

namespace retort {
namespace {

constexpr int64_t kPermutations = 199;
int splits = 2000, threads = 2;

// ---------------------------------------------------------------------------------------------------- two samples

enum class Form { values, categories, vectors };

/// A signal in one of its forms, and what has become of it.
struct Source {
  Form form = Form::values;
  double shift = 0, scale = 1;  // of every number, in standard deviations
  double mixed = 0;             // categories: share of rows that follow the same shares in reverse order
};
constexpr size_t kDimensions = 16;
constexpr double kShares[] = {0.368, 0.184, 0.123, 0.092, 0.074, 0.061, 0.053, 0.045};  // Zipf's law

struct Sample {
  Form form;
  Values values;
  std::vector<int64_t> counts = std::vector<int64_t>(std::size(kShares));
  std::vector<double> numbers;
};

Sample draw(const Source& source, size_t rows, Rng& rng) {
  Sample sample{.form = source.form, .values = {}, .numbers = {}};
  if (source.form == Form::categories) {
    for (size_t i = 0; i < rows; ++i) {
      const bool reversed = rng.uniform() < source.mixed;
      double u = rng.uniform();
      size_t category = 0;
      while (category + 1 < std::size(kShares) && u >= kShares[category]) u -= kShares[category++];
      ++sample.counts[reversed ? std::size(kShares) - 1 - category : category];
    }
    return sample;
  }
  sample.numbers = normals(rng, source.form == Form::vectors ? rows * kDimensions : rows);
  for (double& number : sample.numbers) number = source.shift + source.scale * number;
  if (source.form == Form::values) sample.values = values_of(sample.numbers);
  return sample;
}

Detection compare(const Sample& a, const Sample& b, const DetectorOptions& options) {
  if (a.form == Form::categories) return compare(a.counts, b.counts, options);
  if (a.form == Form::values) return compare(a.values, b.values, options);
  return compare(Vectors{a.numbers, kDimensions}, Vectors{b.numbers, kDimensions}, options);
}

struct Outcome {
  double p_value = NAN;  // of a rule without: NaN
  bool first = false, both = false;
};

/// What decides whether two samples differ.
struct Rule {
  std::string name;
  std::function<Outcome(const Sample&, const Sample&, uint64_t trial)> decide;
};

/// One of ours: significant, and then also above its limit.
Rule ours(const std::string& kind, int64_t permutations = kPermutations) {
  return {
      "`" + kind + "`", [=](const Sample& a, const Sample& b, uint64_t trial) {
        const DetectorOptions options{
            .kind = kind, .limit = {}, .permutations = permutations, .seed = static_cast<int64_t>(trial), .gamma = {}};
        const Detection detection = compare(a, b, options);
        const bool first = detection.p_value <= kAlpha;
        return Outcome{detection.p_value, first, first && detection.effect > detection.limit};
      }};
}

/// A fixed limit on the statistic of a named profile.
Rule fixed(const std::string& kind, const std::string& profile, double limit) {
  return {fmt::format("`{}.{}` ≥ {}", kind, profile, limit), [=](const Sample& a, const Sample& b, uint64_t) {
            const DetectorOptions options{.kind = kind, .profile = profile, .limit = {}, .gamma = {}, .p_value = false};
            const bool alarm = compare(a, b, options).effect >= limit;
            return Outcome{NAN, alarm, alarm};
          }};
}

/// Evidently's chi^2: the current counts against the baseline's shares, as if those were known exactly.
Rule baseline_taken_as_exact() {
  return {"χ² of the current counts, baseline taken as exact (Evidently), p ≤ 0.05",
          [](const Sample& a, const Sample& b, uint64_t) {
            const double n = std::accumulate(a.counts.begin(), a.counts.end(), 0.0);
            const double m = std::accumulate(b.counts.begin(), b.counts.end(), 0.0);
            double sum = 0;
            for (size_t i = 0; i < a.counts.size(); ++i) {
              const double expected = static_cast<double>(a.counts[i]) * m / n;
              sum += std::pow(static_cast<double>(b.counts[i]) - expected, 2) / expected;
            }
            const double p = chi_squared_tail(sum, static_cast<double>(a.counts.size() - 1));
            return Outcome{p, p <= kAlpha, p <= kAlpha};
          }};
}

struct Sizes {
  size_t baseline, current;
};

/// Of many pairs of samples.
struct Rate {
  double first = 0, both = 0;
  double level = 0;  // the largest p-value seen that is at most alpha
};

std::vector<Rate> rates(const std::vector<Rule>& rules, Sizes sizes, const Source& before, const Source& after,
                        int trials) {
  std::vector<Outcome> outcomes(rules.size() * static_cast<size_t>(trials));
  for_trials(trials, threads, [&](uint64_t trial) {
    Rng rng(sizes.baseline * 1000003 + sizes.current, trial);
    const Sample a = draw(before, sizes.baseline, rng), b = draw(after, sizes.current, rng);
    for (size_t r = 0; r < rules.size(); ++r) outcomes[(trial - 1) * rules.size() + r] = rules[r].decide(a, b, trial);
  });
  std::vector<Rate> rates(rules.size());
  for (size_t i = 0; i < outcomes.size(); ++i) {
    Rate& rate = rates[i % rules.size()];
    rate.first += outcomes[i].first / static_cast<double>(trials);
    rate.both += outcomes[i].both / static_cast<double>(trials);
    if (outcomes[i].first && !std::isnan(outcomes[i].p_value)) rate.level = std::max(rate.level, outcomes[i].p_value);
  }
  return rates;
}

// ------------------------------------------------------------------------------------------------- false alarms

/// Exact: the narrowest counts that hold at least 99 % of a binomial between equal tails, as shares.
std::pair<double, double> band(double p, int trials) {
  const boost::math::binomial binomial(trials, p);
  return {quantile(binomial, 0.005) / trials, quantile(complement(binomial, 0.005)) / trials};
}

int cells = 0, inside = 0;

/// "0.051 / 0.020"; says the level where p-values are too coarse to reach alpha, and where the rate is outside its
/// band.
std::string null_cell(const Rate& rate) {
  std::string text = fmt::format("{:.3f}", rate.first);
  const bool coarse = rate.level < 0.049;
  if (coarse) text += fmt::format(" of {:.3f}", rate.level);
  const auto [low, high] = band(coarse ? rate.level : kAlpha, splits);
  ++cells;
  inside += rate.first >= low && rate.first <= high;
  if (rate.first < low) text += " **below**";
  if (rate.first > high) text += " **above**";
  return fmt::format("{} / {:.3f}", text, rate.both);
}

void header(const std::string& first, const std::vector<Sizes>& sizes) {
  fmt::print("\n| {} |", first);
  for (const Sizes& size : sizes) fmt::print(" {}, {} |", size.baseline, size.current);
  fmt::print("\n|---|");
  for (size_t i = 0; i < sizes.size(); ++i) fmt::print("---|");
  fmt::print("\n");
}

void null_table(const std::string& title, const Source& source, const std::vector<Sizes>& sizes,
                const std::vector<Rule>& own, const std::vector<Rule>& others) {
  std::vector<Rule> rules = own;
  rules.insert(rules.end(), others.begin(), others.end());
  std::vector<std::vector<Rate>> columns;
  for (const Sizes& size : sizes) columns.push_back(rates(rules, size, source, source, splits));
  header(title, sizes);
  for (size_t r = 0; r < rules.size(); ++r) {
    fmt::print("| {} |", rules[r].name);
    for (const auto& column : columns)
      fmt::print(" {} |", r < own.size() ? null_cell(column[r]) : fmt::format("{:.3f}", column[r].first));
    fmt::print("\n");
  }
  std::fflush(stdout);
}

/// x_t = rho x_t-1 + e_t, with variance 1.
std::vector<double> autoregression(Rng& rng, size_t rows, double rho) {
  std::vector<double> series(rows);
  double last = normal(rng);
  for (double& value : series) value = last = rho * last + std::sqrt(1 - rho * rho) * normal(rng);
  return series;
}

/// Rows that depend on their neighbours: p-values as if they did not, and from the null that the baseline's blocks
/// give.
void calibrated_table() {
  const size_t n = 1000, m = 100;
  fmt::print(
      "\n| correlation of neighbours | `ks`, its own p | `ks`, calibrated | `psi`, its own p | `psi`, calibrated "
      "|\n|---|---|---|---|---|\n");
  for (double rho : {0.0, 0.3, 0.6}) {
    std::vector<std::array<bool, 4>> alarms(static_cast<size_t>(splits));
    for_trials(splits, threads, [&](uint64_t trial) {
      Rng rng(41, trial);
      const std::vector<double> baseline = autoregression(rng, n, rho);
      const Values reference = values_of(baseline), current = values_of(autoregression(rng, m, rho));
      const int64_t block = block_length(baseline);
      const auto take = [&](std::span<const size_t> rows) {
        std::vector<double> sample;
        for (size_t row : rows) sample.push_back(baseline[row]);
        return values_of(sample);
      };
      for (size_t k = 0; k < 2; ++k) {
        DetectorOptions options{.kind = k == 0 ? "ks" : "psi",
                                .limit = {},
                                .permutations = kPermutations,
                                .seed = static_cast<int64_t>(trial),
                                .gamma = {}};
        const Detection detection = compare(reference, current, options);
        options.p_value = false;
        const NullTable table = calibrate_null(n, n, m, detector_kind(options.kind).order,
                                               [&](std::span<const size_t> a, std::span<const size_t> b) {
                                                 return compare(take(a), take(b), options).statistic;
                                               },
                                               {.resamples = 199, .block = block, .seed = static_cast<int64_t>(trial)});
        alarms[trial - 1][2 * k] = detection.p_value <= kAlpha;
        alarms[trial - 1][2 * k + 1] = table.p_value(detection.statistic, m) <= kAlpha;
      }
    });
    fmt::print("| {} |", rho);
    for (size_t i = 0; i < 4; ++i) {
      const auto count = std::count_if(alarms.begin(), alarms.end(), [&](const auto& alarm) { return alarm[i]; });
      fmt::print(" {:.3f} |", static_cast<double>(count) / splits);
    }
    fmt::print("\n");
    std::fflush(stdout);
  }
}

const std::vector<Rule> kValueRules = {ours("psi"), ours("ks"), ours("jensen_shannon"), ours("wasserstein"),
                                       ours("energy")};
const std::vector<Rule> kCategoryRules = {ours("chi_square"), ours("psi"), ours("jensen_shannon")};
const std::vector<Rule> kVectorRules = {ours("mmd", 99), ours("domain_classifier", 99)};
const std::vector<Rule> kValuePeers = {fixed("psi", "evidently", 0.1),        fixed("psi", "frouros", 0.1),
                                       fixed("psi", "deciles", 0.1),          fixed("psi", "deciles", 0.2),
                                       fixed("psi", "deciles", 0.25),         fixed("jensen_shannon", "evidently", 0.1),
                                       fixed("wasserstein", "evidently", 0.1)};

void false_alarms() {
  const auto [low, high] = band(kAlpha, splits);
  fmt::print("### False alarms\n\n{} pairs of samples a column; the band of {} is {:.3f} to {:.3f}.\n", splits, kAlpha,
             low, high);
  const std::vector<Sizes> sizes = {{100, 100}, {500, 500}, {2000, 200}, {10000, 1000}, {10000, 5000}};
  null_table("normal values", {}, sizes, kValueRules, kValuePeers);
  null_table("eight categories", {.form = Form::categories}, sizes, kCategoryRules,
             {fixed("psi", "evidently", 0.1), fixed("jensen_shannon", "evidently", 0.1), baseline_taken_as_exact()});
  null_table("vectors of 16", {.form = Form::vectors}, {{100, 100}, {1000, 50}, {500, 500}, {2000, 200}}, kVectorRules,
             {fixed("mmd", "evidently", 0.015)});
  fmt::print("\nInside the band: {} of {}.\n", inside, cells);
  fmt::print("\n### Rows that depend on each other\n");
  calibrated_table();
}

// ------------------------------------------------------------------------------------------------------- power

struct Change {
  std::string name;
  Source source;
};

void power_table(const std::string& title, const std::vector<Sizes>& sizes, const std::vector<Change>& changes,
                 const std::vector<Rule>& own, const std::vector<Rule>& others, int trials) {
  std::vector<Rule> rules = own;
  rules.insert(rules.end(), others.begin(), others.end());
  fmt::print("\n| rows | {} |", title);
  for (const Rule& rule : rules) fmt::print(" {} |", rule.name);
  fmt::print("\n|---|---|");
  for (size_t i = 0; i < rules.size(); ++i) fmt::print("---|");
  fmt::print("\n");
  for (const Sizes& size : sizes) {
    for (const Change& change : changes) {
      const std::vector<Rate> seen = rates(rules, size, {.form = change.source.form}, change.source, trials);
      fmt::print("| {}, {} | {} |", size.baseline, size.current, change.name);
      for (size_t r = 0; r < rules.size(); ++r) {
        if (r < own.size())
          fmt::print(" {:.2f} / {:.2f} |", seen[r].first, seen[r].both);
        else
          fmt::print(" {:.2f} |", seen[r].first);
      }
      fmt::print("\n");
      std::fflush(stdout);
    }
  }
}

void power() {
  const int trials = splits / 8;
  fmt::print("\n### Power\n\n{} pairs of samples a row.\n", trials);
  const std::vector<Sizes> sizes = {{500, 100}, {2000, 500}, {10000, 5000}};
  power_table("change", sizes,
              {{"+0.1 σ", {.shift = 0.1}},
               {"+0.2 σ", {.shift = 0.2}},
               {"+0.3 σ", {.shift = 0.3}},
               {"+0.5 σ", {.shift = 0.5}},
               {"σ × 1.2", {.scale = 1.2}},
               {"σ × 1.5", {.scale = 1.5}}},
              kValueRules,
              {fixed("psi", "evidently", 0.1), fixed("psi", "deciles", 0.2), fixed("wasserstein", "evidently", 0.1)},
              trials);
  power_table("rows from reversed shares", sizes,
              {{"10 %", {.form = Form::categories, .mixed = 0.1}},
               {"25 %", {.form = Form::categories, .mixed = 0.25}},
               {"50 %", {.form = Form::categories, .mixed = 0.5}}},
              kCategoryRules, {fixed("psi", "evidently", 0.1), fixed("jensen_shannon", "evidently", 0.1)}, trials);
  power_table("every coordinate", {{100, 100}, {500, 100}},
              {{"+0.1 σ", {.form = Form::vectors, .shift = 0.1}},
               {"+0.2 σ", {.form = Form::vectors, .shift = 0.2}},
               {"+0.3 σ", {.form = Form::vectors, .shift = 0.3}}},
              kVectorRules, {fixed("mmd", "evidently", 0.015)}, trials);
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("False alarms and power of the drift detectors");
  app.add_option("--splits", retort::splits, "pairs of samples a cell")->check(CLI::Range(20, 1000000));
  app.add_option("--threads", retort::threads)->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);
  retort::false_alarms();
  retort::power();
  return 0;
}
