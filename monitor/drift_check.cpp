#include "monitor/drift_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "monitor/signal.h"

namespace retort {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

std::string name_of(const DetectorOptions& detector) {
  return detector.profile == "retort" ? detector.kind : detector.kind + "." + detector.profile;
}

Detection detect(const SignalProfile& baseline, const SignalProfile& slot, const DetectorOptions& options) {
  if (baseline.features.rows > 0) return compare(baseline.features, slot.features, options);
  if (baseline.counts.empty()) return compare(baseline.numbers.values(), slot.numbers.values(), options);
  // Folded: a slot's few tokens leave most of thousands of buckets empty, and then nothing brings a statistic from one
  // size to another. The remainders of a keyed hash are as even as the hash.
  constexpr size_t kFolded = 128;
  std::vector<int64_t> folded_a(kFolded), folded_b(kFolded), a, b;
  for (size_t i = 0; i < baseline.counts.size(); ++i) {
    folded_a[i % kFolded] += baseline.counts[i];
    folded_b[i % kFolded] += slot.counts[i];
  }
  for (size_t i = 0; i < kFolded; ++i) {  // without the buckets that neither has
    if (folded_a[i] + folded_b[i] == 0) continue;
    a.push_back(folded_a[i]);
    b.push_back(folded_b[i]);
  }
  return compare(a, b, options);
}

std::optional<Evidence> accuracy_evidence(const SignalProfile& baseline, const SignalProfile& slot) {
  const double before = accuracy_lower_bound(baseline.mean("accuracy"), static_cast<double>(baseline.rows));
  if (!(before > 0 && before < 1)) return std::nullopt;
  return evidence_of_accuracy(slot.numbers.above_zero(), slot.rows, before);
}

void describe(SignalCheck& check, const SignalProfile& baseline, const SignalProfile& slot) {
  if (baseline.numbers.count() == 0) return;
  check.mean = slot.mean(check.signal);
  check.baseline_mean = baseline.mean(check.signal);
  check.baseline_low = baseline.quantile(check.signal, 0.05);
  check.baseline_high = baseline.quantile(check.signal, 0.95);
}

}  // namespace

std::vector<DetectorOptions> detectors_of(const DriftOptions& options) {
  if (!options.detectors.empty()) return options.detectors;
  std::vector<DetectorOptions> detectors;
  for (const char* kind : {"ks", "jensen_shannon", "mmd"}) detectors.emplace_back().kind = kind;
  return detectors;
}

bool SlotCheck::two_keys() const {
  return std::any_of(checks.begin(), checks.end(), [](const SignalCheck& check) { return check.verdict.alarm(); });
}

SlotCheck check_slot(const Profile& baseline, const Profile& slot, const DriftOptions& options) {
  slot.identity.require_same(baseline.identity, "the slot");
  SlotCheck result;
  result.rows = slot.rows;
  std::vector<Evidence> evidence;  // of each signal
  for (const auto& [name, usual] : baseline.signals) {
    const auto fresh = slot.signals.find(name);
    if (fresh == slot.signals.end() || fresh->second.rows < options.min_rows) {
      result.skipped.push_back(fmt::format("{}: {} rows of the slot have it, {} are needed", name,
                                           fresh == slot.signals.end() ? 0 : fresh->second.rows, options.min_rows));
      continue;
    }
    std::vector<Evidence> of_signal;
    for (DetectorOptions detector : detectors_of(options)) {
      if (!takes(detector, *signal_kinds().at(name))) continue;
      const auto null = baseline.nulls.find(name + "/" + name_of(detector));
      SignalCheck check;
      check.signal = name;
      check.rows = fresh->second.rows;
      check.calibrated = null != baseline.nulls.end();
      detector.p_value = !check.calibrated;
      std::optional<NullTable> table;
      if (check.calibrated) {
        table = null_at(null->second, check.rows);
        detector.chance = table->median();
      }
      check.detection = detect(usual, fresh->second, detector);
      check.threshold = kNothing;
      if (table) {
        check.detection.p_value = table->p_value(check.detection.statistic, check.rows);
        check.threshold = table->limit(std::min(options.alpha, 0.1), check.rows);
      } else if (!usual.counts.empty() || std::isnan(check.detection.p_value)) {
        // Tokens of one row depend on each other, so a p-value from counts alone would be far too small.
        result.skipped.push_back(fmt::format("{} ({}): needs `retort drift calibrate`", name, name_of(detector)));
        continue;
      }
      describe(check, usual, fresh->second);
      const auto accuracy = name == "accuracy" ? accuracy_evidence(usual, fresh->second) : std::nullopt;
      of_signal.push_back(accuracy ? *accuracy : evidence_of_p_value(check.detection.p_value));
      result.checks.push_back(std::move(check));
    }
    // A signal speaks once, through however many detectors. A mean of e-values is one.
    if (!of_signal.empty()) evidence.push_back(merge_evidence(of_signal));
  }
  if (result.checks.empty()) return result;
  std::vector<Detection> detections;
  for (const SignalCheck& check : result.checks) detections.push_back(check.detection);
  const std::vector<Verdict> verdicts = two_keys(detections, options.alpha);
  for (size_t i = 0; i < verdicts.size(); ++i) result.checks[i].verdict = verdicts[i];
  result.evidence = merge_evidence(evidence);
  return result;
}

Json SlotCheck::to_json() const {
  Json signals = Json::array();
  for (const SignalCheck& check : checks) {
    const Detection& detection = check.detection;
    Json json{{"signal", check.signal},
              {"detector", detection.name},
              {"unit", signal_kinds().contains(check.signal) ? signal_kinds().at(check.signal)->unit : ""},
              {"rows", check.rows}};
    if (check.mean) {
      json["mean"] = *check.mean;
      json["baseline"] = {{"mean", *check.baseline_mean}, {"p05", *check.baseline_low}, {"p95", *check.baseline_high}};
    }
    json["statistic"] = detection.statistic;
    if (!std::isnan(check.threshold)) json["threshold"] = check.threshold;
    json["p_value"] = detection.p_value;
    json["p_adjusted"] = check.verdict.p_adjusted;
    json["calibrated"] = check.calibrated;
    json["effect"] = detection.effect;
    json["limit"] = detection.limit;
    json["significant"] = check.verdict.significant;
    json["large"] = check.verdict.large;
    json["alarm"] = check.verdict.alarm();
    signals.push_back(std::move(json));
  }
  return {{"rows", rows}, {"two_keys", two_keys()}, {"signals", signals}, {"skipped", skipped}};
}

/// Of one signal, what its measures keep; empty for a row without it.
static RowMeasure only(const RowMeasure& row, const std::string& name) {
  RowMeasure one;
  if (const auto it = row.numbers.find(name); it != row.numbers.end()) one.numbers.insert(*it);
  if (const auto it = row.counts.find(name); it != row.counts.end()) one.counts.insert(*it);
  if (const auto it = row.features.find(name); it != row.features.end()) one.features.insert(*it);
  return one;
}

std::vector<std::string> calibrate(Profile& profile, std::span<const RowMeasure> rows, const DriftOptions& options,
                                   const std::function<void(size_t, size_t)>& progress) {
  if (static_cast<int64_t>(rows.size()) != profile.rows)
    fail(Exit::bad_input,
         "the baseline has {} rows, the profile was made of {}: build it again with `retort drift "
         "profile`",
         rows.size(), profile.rows);
  const CalibrationOptions& calibration = options.calibration;
  profile.nulls.clear();
  std::map<std::string, std::vector<double>> series;
  for (const RowMeasure& row : rows) {
    for (const auto& [name, value] : row.numbers) series[name].push_back(value);
  }
  profile.block = calibration.block;
  if (profile.block == 0) {
    for (const auto& [name, values] : series) profile.block = std::max(profile.block, block_length(values));
    profile.block = std::max<int64_t>(profile.block, 1);
  }
  std::vector<std::string> skipped;
  const size_t all = profile.signals.size() * calibration.sizes.size();
  size_t done = 0;
  for (const auto& [name, signal] : profile.signals) {
    // The rows that have this signal, alone, so that a sample is a profile of few parts.
    std::vector<RowMeasure> having;
    for (const RowMeasure& row : rows) {
      RowMeasure one = only(row, name);
      if (!one.numbers.empty() || !one.counts.empty() || !one.features.empty()) having.push_back(std::move(one));
    }
    if (static_cast<int64_t>(having.size()) != signal.rows)
      fail(Exit::bad_input, "{}: {} rows of the baseline have it, {} of the profile's: build it again", name,
           having.size(), signal.rows);
    std::vector<DetectorOptions> detectors;
    std::vector<double> orders;
    for (DetectorOptions detector : detectors_of(options)) {
      if (!takes(detector, *signal_kinds().at(name))) continue;
      detector.p_value = false;
      detectors.push_back(detector);
      orders.push_back(detector_kind(detector.kind).order);
    }
    if (having.size() < 2 && !detectors.empty()) {
      skipped.push_back(fmt::format("{}: one row of the baseline has it, two are needed", name));
      detectors.clear();
    }
    auto sample = [&](std::span<const size_t> indices) {
      Profile drawn;
      drawn.identity = profile.identity;
      for (size_t i : indices) drawn.add(having[i]);
      return std::move(drawn.signals[name]);
    };
    // Every detector looks at the same draws: making a sample costs more than comparing two.
    const RowStatistics statistics = [&](std::span<const size_t> reference, std::span<const size_t> current) {
      const SignalProfile a = sample(reference), b = sample(current);
      std::vector<double> values;
      for (const DetectorOptions& detector : detectors) values.push_back(detect(a, b, detector).statistic);
      return values;
    };
    for (int64_t size : calibration.sizes) {
      if (!detectors.empty()) {
        const auto tables = calibrate_nulls(having.size(), having.size(), static_cast<size_t>(size), orders, statistics,
                                            {calibration.resamples, profile.block, calibration.seed});
        for (size_t d = 0; d < detectors.size(); ++d)
          profile.nulls[name + "/" + name_of(detectors[d])].push_back(tables[d]);
      }
      if (progress) progress(++done, all);
    }
  }
  return skipped;
}

}  // namespace retort
