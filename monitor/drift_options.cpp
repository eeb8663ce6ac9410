#include "monitor/drift_options.h"

#include <algorithm>

#include "core/error.h"
#include "monitor/signal.h"
#include "monitor/slot.h"

namespace retort {

const Schema<CalibrationOptions>& schema_of(CalibrationOptions*) {
  using O = CalibrationOptions;
  static const auto schema =
      Schema<O>("calibration", "How the null distribution of each statistic is measured on the baseline.")
          .field("resamples", &O::resamples, "pairs of samples drawn; the smallest p-value is 1 / (resamples + 1)",
                 {.minimum = 99, .maximum = 1e6})
          .field("block", &O::block,
                 "rows that are drawn together, because neighbours depend on each other; 0: estimated", {.minimum = 0})
          .field("sizes", &O::sizes, "rows in a slot: one null for each", {.minimum = 2})
          .field("seed", &O::seed, "of the resampling", {.minimum = 0})
          .rule([](const O& o, const Yaml& node) {
            if (o.sizes.empty()) node["sizes"].refuse("at least one size is needed");
          });
  return schema;
}

const Schema<CanaryOptions>& schema_of(CanaryOptions*) {
  using O = CanaryOptions;
  static const auto schema =
      Schema<O>("canaries", "Fixed texts whose answers change only when the deployment does.")
          .field("path", &O::path, "JSON Lines with the texts, as traffic; empty: sixteen built-in ones")
          .field("max_kl", &O::max_kl, "mean KL divergence in nats from the profile's model to what is deployed",
                 {.minimum = 0});
  return schema;
}

bool takes(const DetectorOptions& detector, const SignalKind& signal) {
  const DetectorKind& kind = detector_kind(detector.kind);
  if (signal.number) return kind.of_values != nullptr;
  if (signal.tokens) return kind.of_counts != nullptr;
  return kind.of_means != nullptr && detector.profile == "retort";  // others' rules are of rows
}

/// The watched signals that the detector takes.
static std::vector<std::string> taken_signals(const DriftOptions& options, const DetectorOptions& detector) {
  std::vector<std::string> taken;
  for (const auto& [name, kind] : signal_kinds()) {
    const auto& names = options.signals;
    const bool watched = names.empty() || std::find(names.begin(), names.end(), name) != names.end();
    if (watched && takes(detector, *kind)) taken.push_back(name);
  }
  return taken;
}

/// A detector that is given nothing would be silent for ever.
static void require_signals(const DriftOptions& options, const Yaml& node) {
  for (const DetectorOptions& detector : options.detectors) {
    if (!taken_signals(options, detector).empty()) continue;
    std::vector<std::string> useful;
    for (const auto& [name, kind] : detector_kinds()) {
      DetectorOptions other;
      other.kind = name;
      if (!taken_signals(options, other).empty()) useful.push_back(name);
    }
    node["detectors"].refuse(
        fmt::format("{}{} takes none of the signals ({}): a profile keeps numbers, counts of tokens and a mean of "
                    "vectors' features, "
                    "no rows; these do: {}",
                    detector.kind, detector.profile == "retort" ? "" : " with profile " + detector.profile,
                    options.signals.empty() ? "all" : fmt::format("{}", fmt::join(options.signals, ", ")),
                    fmt::join(useful, ", ")));
  }
}

const Schema<DriftOptions>& schema_of(DriftOptions*) {
  using O = DriftOptions;
  static const auto schema = [] {
    std::vector<std::string> signals;
    for (const auto& [name, kind] : signal_kinds()) signals.push_back(name);
    return Schema<O>("drift", "Watching the domain: a baseline, signals, detectors and the alarm (docs/drift.md).")
        .field("model", &O::model, "the champion that reads the traffic, a GGUF file; empty: model.path")
        .field("profile", &O::profile,
               "where the baseline's profile is; empty: beside the champion, and for one in the cache under output_dir")
        .field("key", &O::key, "the project's key for hashes: env:NAME, or a file that holds it")
        .field("baseline", &O::baseline,
               "data sets with the rows that are usual; without a baseline_log either: data.train")
        .field("baseline_log", &O::baseline_log, "or a serving log with them (docs/drift.md)")
        .field("order", &O::order,
               "of the baseline's rows: as in the file, or by their task's key, for instance a date",
               {.one_of = {"file", "key"}})
        .field("traffic", &O::traffic,
               "data sets that are checked when no --data is given; a key that begins with a "
               "date is a row's time")
        .field("slot", &O::slot, "rows of one day, ISO week, month or year are checked together",
               {.one_of = slot_units()})
        .field("min_rows", &O::min_rows, "a slot with fewer says nothing", {.minimum = 2})
        .field("max_tokens", &O::max_tokens, "of each row; the rest is not read", {.minimum = 8, .maximum = 1 << 20})
        .field("signals", &O::signals, "what is measured; empty: everything that the rows have", {.one_of = signals})
        .field("detectors", &O::detectors,
               "how a slot is compared with the baseline; each takes the signals it can, and takes one at least "
               "(docs/drift.md). "
               "Empty: ks, jensen_shannon, mmd")
        .field("calibration", &O::calibration, "the null distributions")
        .field("canaries", &O::canaries, "texts that tell a changed deployment")
        .field("alpha", &O::alpha, "false-discovery rate of one check",
               {.minimum = 0, .maximum = 0.5, .minimum_open = true})
        .field("average_run_length", &O::average_run_length,
               "mean number of slots between false alarms, at least, when a state is kept", {.minimum = 2})
        .field("state", &O::state, "file that remembers earlier slots; empty: each check stands alone")
        .rule([](const O& o, const Yaml& node) {
          if (!o.baseline.empty() && !o.baseline_log.empty())
            node.refuse("give the usual rows once: baseline (data sets) or baseline_log (a serving log)");
        })
        .rule(require_signals);
  }();
  return schema;
}

}  // namespace retort
