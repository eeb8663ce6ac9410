// How often a check of several signals raises a false alarm by either key, and across checks how long the e-detector
// stays silent and how late it is. Prints tables of docs/drift.md.
//   alarm_simulation [--splits 2000] [--threads 2]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include "bench/simulation.h"
#include "monitor/alarm.h"
#include "tests/monitor/normal.h"

namespace retort {
namespace {

int splits = 2000, threads = 2;

Values normal_values(Rng& rng, size_t rows, double shift) {
  std::vector<double> numbers = normals(rng, rows);
  for (double& number : numbers) number += shift;
  return values_of(numbers);
}

// ---------------------------------------------------------------------------------------------------- two keys

/// Any alarm of a check that looks at six signals through two detectors.
void two_keys_table() {
  constexpr int kSignals = 6;
  fmt::print("\n### A check of six signals, each through `ks` and `jensen_shannon`\n\n{} checks a row.\n", splits);
  fmt::print(
      "\n| rows | change of one signal | some p ≤ 0.05 | some adjusted p ≤ 0.05 | both keys |\n"
      "|---|---|---|---|---|\n");
  for (const auto& [baseline, current] : {std::pair{2000, 200}, {20000, 5000}}) {
    for (double shift : {0.0, 0.05, 0.1, 0.2, 0.3, 0.5}) {
      std::vector<std::array<bool, 3>> alarms(static_cast<size_t>(splits));
      for_trials(splits, threads, [&](uint64_t trial) {
        Rng rng(51, trial);
        std::vector<Detection> detections;
        for (int s = 0; s < kSignals; ++s) {
          const Values a = normal_values(rng, baseline, 0), b = normal_values(rng, current, s == 0 ? shift : 0);
          for (const char* kind : {"ks", "jensen_shannon"}) {
            detections.push_back(compare(
                a, b,
                {.kind = kind, .limit = {}, .permutations = 999, .seed = static_cast<int64_t>(trial), .gamma = {}}));
          }
        }
        const std::vector<Verdict> verdicts = two_keys(detections, kAlpha);
        for (size_t i = 0; i < verdicts.size(); ++i) {
          alarms[trial - 1][0] |= detections[i].p_value <= kAlpha;
          alarms[trial - 1][1] |= verdicts[i].significant;
          alarms[trial - 1][2] |= verdicts[i].alarm();
        }
      });
      fmt::print("| {}, {} | {} |", baseline, current, shift == 0 ? "none" : fmt::format("+{} σ", shift));
      for (size_t i = 0; i < 3; ++i) {
        const auto count = std::count_if(alarms.begin(), alarms.end(), [&](const auto& alarm) { return alarm[i]; });
        fmt::print(" {:.3f} |", static_cast<double>(count) / splits);
      }
      fmt::print("\n");
      std::fflush(stdout);
    }
  }
}

// -------------------------------------------------------------------------------------------------- across runs

/// What a day gives: evidence for the e-detector, and the p-value that a daily test would look at.
struct Day {
  Evidence evidence;
  double p_value;
};
/// A stream of days; `changed` from the onset on.
using Days = std::function<Day(bool changed)>;
/// A new stream, with a baseline of its own.
using Stream = std::function<Days(Rng&)>;

int64_t binomial_draw(Rng& rng, int64_t rows, double p) {
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i) count += rng.uniform() < p;
  return count;
}

/// 50 labelled rows a day, right with probability 0.9 and then `after`; `before` says what is taken for the 0.9.
Stream accuracy(double after, const std::function<double(Rng&)>& before) {
  return [=](Rng& rng) -> Days {
    const double known = before(rng);
    return [=, &rng](bool changed) {
      const int64_t rows = 50, right = binomial_draw(rng, rows, changed ? after : 0.9);
      return Day{evidence_of_accuracy(right, rows, known),
                 cdf(boost::math::binomial(static_cast<double>(rows), known), static_cast<double>(right))};
    };
  };
}
const auto kKnown = [](Rng&) { return 0.9; };

/// Five independent signals whose p-values are uniform.
Days uniform_p_values(Rng& rng) {
  return [&rng](bool) {
    std::vector<Evidence> signals;
    for (int i = 0; i < 5; ++i) signals.push_back(evidence_of_p_value(1 - rng.uniform()));
    return Day{merge_evidence(signals), NAN};
  };
}

/// 100 rows a day through KS against one baseline, later shifted.
Stream ks(size_t baseline_rows, double shift) {
  return [=](Rng& rng) -> Days {
    const Values baseline = normal_values(rng, baseline_rows, 0);
    return [=, &rng](bool changed) {
      const Values today = normal_values(rng, 100, changed ? shift : 0);
      const double p = compare(baseline, today, {.kind = "ks", .limit = {}, .gamma = {}}).p_value;
      return Day{evidence_of_p_value(p), p};
    };
  };
}

/// Days of the first alarms, `most` + 1 where there is none: of the e-detector, and of daily tests at 0.05 and at 1 /
/// A.
struct Firsts {
  int64_t detector, daily, daily_strict;
};

std::vector<Firsts> first_alarms(const Stream& stream, double length, int64_t onset, int64_t most, int streams,
                                 bool daily_too) {
  std::vector<Firsts> firsts(static_cast<size_t>(streams));
  for_trials(streams, threads, [&](uint64_t trial) {
    Rng rng(61, trial);
    const Days days = stream(rng);
    SequentialAlarm alarm({.average_run_length = length, .baseline = {}});
    Firsts first{most + 1, most + 1, most + 1};
    for (int64_t day = 1; day <= most; ++day) {
      if (first.detector <= most && (!daily_too || first.daily_strict <= most)) break;
      const Day today = days(day > onset);
      if (alarm.step(day, today.evidence).alarm) first.detector = std::min(first.detector, day);
      if (today.p_value <= kAlpha) first.daily = std::min(first.daily, day);
      if (today.p_value <= 1 / length) first.daily_strict = std::min(first.daily_strict, day);
    }
    firsts[trial - 1] = first;
  });
  return firsts;
}

void run_length_row(const std::string& name, const Stream& stream, double length, int64_t most, int streams) {
  const std::vector<Firsts> firsts = first_alarms(stream, length, most, most, streams, false);
  double sum = 0, silent = 0, tenth = 0, quarter = 0, whole = 0;
  for (const Firsts& first : firsts) {
    const auto day = static_cast<double>(first.detector);
    sum += std::min(day, static_cast<double>(most)) / streams;
    silent += first.detector > most;
    tenth += day <= length / 10;
    quarter += day <= length / 4;
    whole += day <= length;
  }
  fmt::print("| {} | {} | {:.0f}{} | {:.3f} | {:.3f} | {:.3f} | {} |\n", name, length, sum,
             silent > 0 ? fmt::format(" (cut at {})", most) : "", tenth / streams, quarter / streams, whole / streams,
             streams);
  std::fflush(stdout);
}

/// Mean delay of those that alarm after the onset, and the share that had alarmed before.
std::string delay(const std::vector<Firsts>& firsts, int64_t Firsts::*first, int64_t onset, int64_t most) {
  double sum = 0, seen = 0, before = 0, never = 0;
  for (const Firsts& f : firsts) {
    before += f.*first <= onset;
    never += f.*first > most;
    if (f.*first <= onset || f.*first > most) continue;
    sum += static_cast<double>(f.*first - onset);
    ++seen;
  }
  const auto size = static_cast<double>(firsts.size());
  std::string text = seen > 0 ? fmt::format("{:.1f}", sum / seen) : "–";
  text += fmt::format(" ({:.0f} %", 100 * before / size);
  if (never > 0) text += fmt::format(", {:.0f} % never", 100 * never / size);
  return text + ")";
}

void delay_row(const std::string& name, const Stream& stream) {
  constexpr int64_t onset = 30, most = 430;
  const auto firsts = first_alarms(stream, 365, onset, most, splits / 2, true);
  fmt::print("| {} |", name);
  for (auto first : {&Firsts::detector, &Firsts::daily, &Firsts::daily_strict})
    fmt::print(" {} |", delay(firsts, first, onset, most));
  fmt::print("\n");
  std::fflush(stdout);
}

void across_runs() {
  fmt::print(
      "\n### Run length of the e-detector while nothing changes\n\n"
      "| stream | A, days | mean days to an alarm | P(within A / 10) | P(within A / 4) | P(within A) | streams |\n"
      "|---|---|---|---|---|---|---|\n");
  for (double length : {30.0, 90.0, 365.0})
    run_length_row("accuracy, known", accuracy(0.9, kKnown), length, 20 * static_cast<int64_t>(length), splits);
  for (double length : {30.0, 90.0, 365.0})
    run_length_row("five uniform p-values", uniform_p_values, length, 20 * static_cast<int64_t>(length), splits / 4);
  const auto share = [](Rng& rng) { return static_cast<double>(binomial_draw(rng, 500, 0.9)) / 500; };
  const auto bound = [=](Rng& rng) { return accuracy_lower_bound(share(rng), 500); };
  run_length_row("accuracy, the share of 500 rows", accuracy(0.9, share), 365, 3650, splits);
  run_length_row("accuracy, the lower bound of 500 rows", accuracy(0.9, bound), 365, 3650, splits);
  for (size_t rows : {500, 2000, 20000})
    run_length_row(fmt::format("`ks`, a baseline of {} rows", rows), ks(rows, 0), 365, 1000, splits / 4);

  fmt::print(
      "\n### Delay in days, A = 365, the change on day 31 (share that had alarmed before)\n\n"
      "| change | e-detector | daily test at 0.05 | daily test at 1 / 365 |\n|---|---|---|---|\n");
  for (double after : {0.85, 0.80, 0.75, 0.70})
    delay_row(fmt::format("accuracy 0.90 → {:.2f}, 50 rows a day", after), accuracy(after, kKnown));
  for (double shift : {0.1, 0.2, 0.3, 0.5})
    delay_row(fmt::format("`ks` of 100 rows a day, +{} σ", shift), ks(20000, shift));
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  CLI::App app("False alarms of a check, run lengths and delays of the alarm across checks");
  app.add_option("--splits", retort::splits, "checks a row, or streams")->check(CLI::Range(20, 1000000));
  app.add_option("--threads", retort::threads)->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);
  retort::two_keys_table();
  retort::across_runs();
  return 0;
}
