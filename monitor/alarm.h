// When to raise an alarm: two keys within a check, and an e-detector across checks.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "monitor/detector.h"

namespace retort {

/// Adjusted p-values in the order given: p is rejected at false-discovery rate alpha when its adjusted one is <= alpha
/// (Benjamini and Hochberg 1995). Error(bad_input) for a p outside [0, 1].
std::vector<double> benjamini_hochberg(std::span<const double> p_values);

/// One detection with its two keys.
struct Verdict {
  double p_adjusted = 1;
  bool significant = false;  ///< first key: p_adjusted <= alpha
  bool large = false;        ///< second key: effect > limit
  bool alarm() const { return significant && large; }
};
/// In the order given. Error(usage) unless 0 < alpha < 1; Error(bad_input) naming a detection without p-value.
std::vector<Verdict> two_keys(std::span<const Detection> detections, double alpha = 0.05);

/// Evidence of one slot: e-values against "nothing has changed", one for each of several alternatives. Each is
/// non-negative with mean at most one while nothing has changed.
constexpr size_t kAlternatives = 4;
using Evidence = std::array<double, kAlternatives>;

/// kappa p^(kappa - 1) for kappa = 0.2, 0.4, 0.6, 0.8 (Vovk and Wang 2021). Error(bad_input) unless 0 < p <= 1.
Evidence evidence_of_p_value(double p_value);
/// Likelihood ratios of `right` of `rows` answers against accuracy `before`, at accuracies lower by 0.05, 0.10, 0.15
/// and 0.20 (never below a tenth of `before`). `before` must be a lower bound of the accuracy for the guarantee to
/// hold. Error(bad_input) unless 0 <= right <= rows and 0 < before < 1.
Evidence evidence_of_accuracy(int64_t right, int64_t rows, double before);
/// A 95 % lower bound of an accuracy of `share` over `rows` answers (Wilson 1927), for `before` above.
double accuracy_lower_bound(double share, double rows);
/// The mean by alternative: valid whatever the dependence between the signals. Error(bad_input) when empty.
Evidence merge_evidence(std::span<const Evidence> signals);

struct SequentialOptions {
  /// Alarm at this level; while nothing changes, the mean number of slots to the first alarm is at least this, and
  /// P(alarm within t slots) <= t / average_run_length.
  double average_run_length = 365;
  std::string baseline;  ///< which baseline the evidence is against, for instance its hash
};

/// What a slot answered.
struct SlotAnswer {
  int64_t slot = 0;
  double level = 0;  ///< mean of the Shiryaev-Roberts statistics after this slot
  bool alarm = false;
  Json record;            ///< what the caller stored with it
  bool repeated = false;  ///< the slot had been recorded before: `record` is that of then
};

/// Shiryaev-Roberts e-detector R <- (R + 1) * L, one R an alternative and their mean against the average run length
/// (Shin, Ramdas, Rinaldo: E-detectors, 2023). Missed slots count as not looked at.
class SequentialAlarm {
 public:
  explicit SequentialAlarm(SequentialOptions options);
  /// Slots rise. A slot of the history again gives the answer of then and changes nothing; another one before the last:
  /// Error(bad_input).
  SlotAnswer step(int64_t slot, const Evidence& evidence, Json record = nullptr);
  /// The last slots, oldest first, at most kHistory.
  const std::vector<SlotAnswer>& history() const { return history_; }
  static constexpr size_t kHistory = 1000;

  Json to_json() const;
  /// Error(bad_input) naming `where` when damaged, or when made with another baseline or average run length.
  static SequentialAlarm from_json(const Json& json, const SequentialOptions& options, const std::string& where);

 private:
  SequentialOptions options_;
  Evidence levels_{};
  std::vector<SlotAnswer> history_;
};

/// step() on the state in `path` (created when missing): read, stepped, and replaced atomically, while "<path>.lock" is
/// held, so that processes take turns. Errors: as step() and from_json(); Error(io).
SlotAnswer step_alarm(const std::filesystem::path& path, const SequentialOptions& options, int64_t slot,
                      const Evidence& evidence, Json record = nullptr);
/// The state in `path`; nullopt when there is no such file.
std::optional<SequentialAlarm> read_alarm(const std::filesystem::path& path, const SequentialOptions& options);

}  // namespace retort
