// A slot of traffic against the baseline: every signal through every detector that takes it.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "monitor/alarm.h"
#include "monitor/drift_options.h"
#include "monitor/profile.h"

namespace retort {

/// One signal through one detector.
struct SignalCheck {
  std::string signal;
  Detection detection;
  Verdict verdict;
  int64_t rows = 0;         ///< of the slot that have the signal
  bool calibrated = false;  ///< the p-value comes from the profile's null, not from assuming independent rows
  double threshold = 0;     ///< the statistic whose p-value is alpha; NaN when not calibrated
  std::optional<double> mean, baseline_mean, baseline_low, baseline_high;  ///< of numbers: means, 5 % and 95 %
};

struct SlotCheck {
  int64_t rows = 0;
  std::vector<SignalCheck> checks;
  std::vector<std::string> skipped;  ///< what could not be said, and why
  Evidence evidence{};               ///< for the alarm across slots
  bool two_keys() const;
  Json to_json() const;
};

/// Detectors of the recipe, or the default ones.
std::vector<DetectorOptions> detectors_of(const DriftOptions& options);

/// Error(bad_input) when the profiles do not belong together.
SlotCheck check_slot(const Profile& baseline, const Profile& slot, const DriftOptions& options);

/// Fills profile.nulls from the baseline's rows in their order. Returns what could not be calibrated, and why.
/// Error(bad_input) when they are not the profile's.
std::vector<std::string> calibrate(Profile& profile, std::span<const RowMeasure> rows, const DriftOptions& options,
                                   const std::function<void(size_t done, size_t all)>& progress = {});

}  // namespace retort
