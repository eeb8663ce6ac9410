// A recipe's drift block at work: the baseline's profile, its calibration, and the check of fresh traffic.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "monitor/drift_check.h"
#include "monitor/profile.h"
#include "monitor/traffic.h"
#include "recipes/recipe.h"

namespace retort {

/// The drift block with its files fetched. Error(usage) when the recipe has none.
struct DriftSetup {
  DriftOptions options;
  std::string key;
  std::filesystem::path model, profile;
};
DriftSetup set_up_drift(const Recipe& recipe, const ProgressSink& progress);

/// Rows of data sets as traffic: a chat's messages before the answer, or a text. A key that begins with a date is the
/// row's time. In the order of drift.order.
std::vector<TrafficRow> traffic_of(const std::vector<DatasetOptions>& files, const std::string& order);
/// The recipe's baseline.
std::vector<TrafficRow> baseline_rows(const DriftSetup& setup);

/// A serving log; Error(bad_input) when it is empty.
std::vector<TrafficRow> log_rows(const std::filesystem::path& path);
std::vector<std::string> canary_texts_of(const DriftOptions& options);
/// The profile that setup names, with its hash. Error(usage) when there is none.
std::pair<Profile, std::string> own_profile(const DriftSetup& setup);
/// `gamma`: of the profile that rows are compared with; 0: the model's own.
MeasureOptions measuring(const DriftSetup& setup, const Recipe& recipe, double gamma);
std::vector<RowMeasure> measured(Measurer& measurer, const std::vector<TrafficRow>& rows, const std::string& task,
                                 const ProgressSink& progress);
/// Error(bad_input) unless the profile is of this champion, key and settings.
void require_own(const Profile& profile, const Measurer& measurer, const DriftSetup& setup);

/// A profile of rows that were measured.
Profile profile_of(Measurer& measurer, const DriftSetup& setup, std::span<const RowMeasure> rows);

/// Writes the profile; returns {"path", "sha256", "bytes", "rows", "signals"}.
Json build_profile(const Recipe& recipe, const ProgressSink& progress);
/// The profile of all rows of these: of one model, key and settings, else Error(bad_input). It has no nulls: calibrate
/// it with the rows of all. Returns as build_profile().
Json merge_profiles(const std::vector<std::filesystem::path>& paths, const std::filesystem::path& out);
/// Adds the nulls to the profile; returns {"path", "sha256", "bytes", "block", "resamples", "sizes", "nulls",
/// "skipped", "seconds"}.
Json calibrate_profile(const Recipe& recipe, const ProgressSink& progress);

struct DriftRequest {
  std::filesystem::path data;      ///< empty: drift.traffic
  std::vector<TrafficRow> rows;    ///< instead of `data`, when there are any
  std::string slot;                ///< empty: by the rows' times, else `today`
  std::optional<Day> today;        ///< nothing: by this machine's clock
  std::filesystem::path state;     ///< empty: drift.state
  std::filesystem::path metrics;   ///< OpenMetrics text; empty: none
  std::filesystem::path out;       ///< folder of report.json and report.html; empty: <output_dir>/<name>/drift
  std::filesystem::path deployed;  ///< the file that serves; empty: the champion
};
/// Checks the slots of the traffic; writes report.json and report.html. The report is returned: its
/// drift.decision.alarm says whether retraining is due, drift.decision.compared whether any slot could be compared.
Json check_drift(const Recipe& recipe, const DriftRequest& request, const ProgressSink& progress);
/// `retort drift check`'s exit code: 10 for an alarm, 13 when nothing was compared, else 0.
int drift_exit(const Json& report);

/// What Prometheus is told of a report: its last slot and the decision.
std::string drift_metrics(const Json& report);

}  // namespace retort
