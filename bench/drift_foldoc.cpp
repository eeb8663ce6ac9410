// When does the alarm notice that the domain has moved? FOLDOC's entries by their own dates, and entries of the Jargon
// File mixed in from a known slot. Prints the tables of docs/drift.md:
//
//   RETORT_PROJECT_KEY=… build/release/bench/drift_foldoc configs/drift/foldoc.yaml
//
// Every row is scored once and cached, so that mixtures ask no model.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "monitor/alarm.h"
#include "monitor/slot.h"
#include "recipes/drift.h"

namespace retort {
namespace {

constexpr size_t kRows = 50;      ///< of a slot
constexpr size_t kQuiet = 10;     ///< slots before the change
constexpr size_t kSlots = 40;     ///< of a stream
constexpr size_t kStreams = 100;  ///< of each share

DatasetOptions jargon_file() {
  auto options = from_yaml<DatasetOptions>(Yaml::parse(R"(
kind: dictd
path: "deb:dict-jargon!usr/share/dictd/jargon.dict.dz"
options: {index: "deb:dict-jargon!usr/share/dictd/jargon.index"}
limit: 300
task:
  filters: [{field: definition, min_chars: 80}]
  key: "{{ headword }}"
  text: "{{ headword }}: {{ definition }}"
)",
                                                       "the Jargon File"));
  resolve_paths(options, [](const std::string& path) { return pull({path, "", ""}); });
  return options;
}

Profile profile_like(const Profile& profile) {
  Profile empty;
  empty.identity = profile.identity;
  return empty;
}

SlotCheck check(const Profile& baseline, const std::vector<const RowMeasure*>& rows, const DriftOptions& options) {
  Profile slot = profile_like(baseline);
  for (const RowMeasure* row : rows) slot.add(*row);
  return check_slot(baseline, slot, options);
}

std::string beyond(const SlotCheck& check) {
  std::vector<std::string> names;
  for (const SignalCheck& one : check.checks)
    if (one.verdict.alarm()) names.push_back(one.signal);
  return fmt::format("{}", fmt::join(names, ", "));
}

/// FOLDOC's later years as they are.
void years(const Profile& baseline, const std::vector<TrafficRow>& rows, const std::vector<RowMeasure>& measures,
           const DriftOptions& options) {
  fmt::print("\n| Year | Rows | Beyond both keys | E-detector (alarm at {:.0f}) |\n|---|---|---|---|\n",
             options.average_run_length);
  std::map<int64_t, std::vector<const RowMeasure*>> slots;
  for (size_t i = 0; i < rows.size(); ++i)
    slots[slot_number("year", slot_name("year", rows[i].day.value()))].push_back(&measures[i]);
  SequentialAlarm alarm({.average_run_length = options.average_run_length, .baseline = ""});
  for (const auto& [year, slot] : slots) {
    if (static_cast<int64_t>(slot.size()) < options.min_rows) continue;
    const SlotCheck result = check(baseline, slot, options);
    const SlotAnswer answer = alarm.step(year, result.evidence);
    fmt::print("| {} | {} | {} | {:.3g}{} |\n", year, slot.size(), beyond(result), answer.level,
               answer.alarm ? " ALARM" : "");
  }
}

struct Tally {
  size_t early = 0, found = 0, quiet_slots = 0, quiet_keys = 0, mixed_slots = 0, mixed_keys = 0;
  std::vector<double> delays;
};

/// One stream: quiet slots of usual rows, then slots whose rows are of the other domain with probability `share`.
void stream(const std::vector<RowMeasure>& usual, const std::vector<RowMeasure>& other, double share,
            const Profile& calibrated, const DriftOptions& options, uint64_t seed, Tally& tally) {
  Rng rng(seed);
  std::vector<size_t> order(usual.size());
  std::iota(order.begin(), order.end(), size_t{0});
  rng.shuffle(std::span(order));
  const auto baseline_rows = static_cast<size_t>(calibrated.rows);
  Profile baseline = profile_like(calibrated);
  for (size_t i = 0; i < baseline_rows; ++i) baseline.add(usual[order[i]]);
  baseline.nulls = calibrated.nulls;
  SequentialAlarm alarm({.average_run_length = options.average_run_length, .baseline = ""});
  bool sounded = false;  // the two keys are counted to the end: slots up to an alarm are not like the others
  for (size_t slot = 0; slot < kSlots; ++slot) {
    std::vector<const RowMeasure*> rows;
    for (size_t i = 0; i < kRows; ++i) {
      const bool strange = slot >= kQuiet && rng.uniform() < share;
      // No usual row comes twice: it would be a change of its own.
      rows.push_back(strange ? &other[rng.below(other.size())] : &usual[order[baseline_rows + slot * kRows + i]]);
    }
    const SlotCheck result = check(baseline, rows, options);
    (slot < kQuiet ? tally.quiet_slots : tally.mixed_slots)++;
    (slot < kQuiet ? tally.quiet_keys : tally.mixed_keys) += result.two_keys();
    if (!alarm.step(static_cast<int64_t>(slot), result.evidence).alarm || sounded) continue;
    sounded = true;
    if (slot < kQuiet) {
      ++tally.early;
    } else {
      ++tally.found;
      tally.delays.push_back(static_cast<double>(slot - kQuiet + 1));
    }
  }
}

void mixtures(const std::vector<RowMeasure>& usual, const std::vector<RowMeasure>& other, const Profile& calibrated,
              const DriftOptions& options) {
  fmt::print(
      "\n| Share | Alarm before the change | Found within {} slots | Slots to the alarm, mean (median) | "
      "Two keys, a quiet slot | Two keys, a mixed slot |\n|---|---|---|---|---|---|\n",
      kSlots - kQuiet);
  for (double share : {0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5}) {
    Tally tally;
    for (size_t s = 0; s < kStreams; ++s) stream(usual, other, share, calibrated, options, 1000 + s, tally);
    std::sort(tally.delays.begin(), tally.delays.end());
    const double mean = std::accumulate(tally.delays.begin(), tally.delays.end(), 0.0) /
                        static_cast<double>(std::max<size_t>(tally.delays.size(), 1));
    fmt::print("| {:.0f} % | {} of {} | {} of {} | {} | {:.3f} | {:.3f} |\n", 100 * share, tally.early, kStreams,
               tally.found, kStreams - tally.early,
               tally.delays.empty() ? "–" : fmt::format("{:.1f} ({:.0f})", mean, tally.delays[tally.delays.size() / 2]),
               static_cast<double>(tally.quiet_keys) / static_cast<double>(tally.quiet_slots),
               static_cast<double>(tally.mixed_keys) / static_cast<double>(std::max<size_t>(tally.mixed_slots, 1)));
    std::fflush(stdout);
  }
}

void run(const std::string& path) {
  const ProgressSink progress = stream_progress();
  const Recipe recipe = load_recipe(path);
  const DriftSetup setup = set_up_drift(recipe, progress);
  DriftSetup more = setup;
  for (DatasetOptions& file : more.options.baseline)
    file.limit = file.limit.value() + static_cast<int64_t>(kSlots * kRows);
  Measurer measurer(setup.model, measuring(setup, recipe, 0));
  const std::vector<TrafficRow> baseline = baseline_rows(setup), all = baseline_rows(more),
                                later = traffic_of(setup.options.traffic, "key"),
                                jargon = traffic_of({jargon_file()}, "file");
  if (all.size() < baseline.size() + kSlots * kRows)
    fail(Exit::bad_input, "{} rows to 1997 are too few for {} slots of {} beside the baseline", all.size(), kSlots,
         kRows);
  const auto usual = measured(measurer, baseline, "baseline", progress),
             usual_and_more = measured(measurer, all, "to 1997", progress),
             fresh = measured(measurer, later, "later", progress),
             other = measured(measurer, jargon, "Jargon File", progress);
  Profile profile = profile_of(measurer, setup, usual);
  DriftOptions options = setup.options;
  calibrate(profile, usual, options);
  fmt::print("FOLDOC: {} rows to 1997 are the baseline (blocks of {} rows), {} later rows. Jargon File: {} rows.\n",
             baseline.size(), profile.block, later.size(), jargon.size());
  years(profile, later, fresh, options);
  mixtures(usual_and_more, other, profile, options);
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  try {
    if (argc != 2) retort::fail(retort::Exit::usage, "drift_foldoc configs/drift/foldoc.yaml");
    retort::run(argv[1]);
  } catch (const retort::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit());
  }
}
