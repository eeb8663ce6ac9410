// The recipe's `drift:` block: what the baseline is, what is watched, and when to raise an alarm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/schema.h"
#include "data/dataset.h"
#include "monitor/detector.h"
#include "monitor/signal.h"

namespace retort {

struct CalibrationOptions {
  int64_t resamples = 2000;
  int64_t block = 0;  ///< rows; 0: from the baseline's own dependence (monitor/calibration.h)
  std::vector<int64_t> sizes = {20, 50, 100, 200, 400, 800};
  int64_t seed = 1;
};
const Schema<CalibrationOptions>& schema_of(CalibrationOptions*);

struct CanaryOptions {
  std::string path;      ///< JSON Lines as traffic; empty: the built-in texts
  double max_kl = 0.01;  ///< nats, mean over the texts
};
const Schema<CanaryOptions>& schema_of(CanaryOptions*);

struct DriftOptions {
  std::string model;                           ///< the champion's GGUF file; empty: the recipe's model.path
  std::string profile;                         ///< the profile's file; empty: beside the model
  std::string key = "env:RETORT_PROJECT_KEY";  ///< env:NAME, or a file
  std::vector<DatasetOptions> baseline;        ///< rows of data sets; both empty: the recipe's training rows
  std::string baseline_log;                    ///< … or of a serving log
  std::string order = "file";                  ///< file | key
  std::vector<DatasetOptions> traffic;         ///< checked when no --data is given
  std::string slot = "day";                    ///< day | week | month | year
  int64_t min_rows = 20;
  int64_t max_tokens = 256;
  std::vector<std::string> signals;
  std::vector<DetectorOptions> detectors;
  CalibrationOptions calibration;
  CanaryOptions canaries;
  double alpha = 0.05;
  double average_run_length = 365;
  std::string state;
};
const Schema<DriftOptions>& schema_of(DriftOptions*);

/// Whether the detector can be given what a profile keeps of the signal.
bool takes(const DetectorOptions& detector, const SignalKind& signal);

}  // namespace retort
