#include "monitor/alarm.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"

namespace retort {

std::vector<double> benjamini_hochberg(std::span<const double> p_values) {
  for (double p : p_values) {
    if (!(p >= 0 && p <= 1)) fail(Exit::bad_input, "a p-value of {}; it lies between 0 and 1", p);
  }
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] > p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double smallest = 1;
  for (size_t i = 0; i < order.size(); ++i) {  // the largest first: its rank is the number of tests
    const double rank = static_cast<double>(order.size() - i);
    smallest = std::min(smallest, p_values[order[i]] * static_cast<double>(order.size()) / rank);
    adjusted[order[i]] = smallest;
  }
  return adjusted;
}

std::vector<Verdict> two_keys(std::span<const Detection> detections, double alpha) {
  if (!(alpha > 0 && alpha < 1)) fail(Exit::usage, "alpha {}: it lies between 0 and 1", alpha);
  std::vector<double> p_values;
  for (const Detection& detection : detections) {
    if (std::isnan(detection.p_value)) {
      fail(Exit::bad_input, "detector {} has no p-value here; read it from a calibrated null", detection.name);
    }
    p_values.push_back(detection.p_value);
  }
  const std::vector<double> adjusted = benjamini_hochberg(p_values);
  std::vector<Verdict> verdicts;
  for (size_t i = 0; i < detections.size(); ++i)
    verdicts.push_back({adjusted[i], adjusted[i] <= alpha, detections[i].effect > detections[i].limit});
  return verdicts;
}

Evidence evidence_of_p_value(double p_value) {
  if (!(p_value > 0 && p_value <= 1)) fail(Exit::bad_input, "a p-value of {}; it is above 0 and at most 1", p_value);
  Evidence evidence{};
  for (size_t k = 0; k < kAlternatives; ++k) {
    const double kappa = 0.2 * static_cast<double>(k + 1);
    evidence[k] = kappa * std::pow(p_value, kappa - 1);
  }
  return evidence;
}

Evidence evidence_of_accuracy(int64_t right, int64_t rows, double before) {
  if (right < 0 || right > rows || !(before > 0 && before < 1)) {
    fail(Exit::bad_input, "{} right answers of {} against an accuracy of {} before; it lies between 0 and 1", right,
         rows, before);
  }
  Evidence evidence{};
  for (size_t k = 0; k < kAlternatives; ++k) {
    const double after = std::max(before - 0.05 * static_cast<double>(k + 1), before / 10);
    evidence[k] = std::exp(static_cast<double>(right) * std::log(after / before) +
                           static_cast<double>(rows - right) * std::log((1 - after) / (1 - before)));
  }
  return evidence;
}

double accuracy_lower_bound(double share, double rows) {
  if (!(share >= 0 && share <= 1 && rows >= 1))
    fail(Exit::bad_input, "an accuracy of {} over {} answers; it lies between 0 and 1, over at least one", share, rows);
  constexpr double z = 1.644854;
  const double z2 = z * z;
  return (share + z2 / (2 * rows) - z * std::sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows))) /
         (1 + z2 / rows);
}

Evidence merge_evidence(std::span<const Evidence> signals) {
  if (signals.empty()) fail(Exit::bad_input, "no signal to take evidence from");
  Evidence mean{};
  for (const Evidence& signal : signals)
    for (size_t k = 0; k < kAlternatives; ++k) mean[k] += signal[k] / static_cast<double>(signals.size());
  return mean;
}

SequentialAlarm::SequentialAlarm(SequentialOptions options) : options_(std::move(options)) {
  if (!(options_.average_run_length >= 1) || !std::isfinite(options_.average_run_length)) {
    fail(Exit::usage, "average run length {}: a number of slots, at least 1", options_.average_run_length);
  }
}

SlotAnswer SequentialAlarm::step(int64_t slot, const Evidence& evidence, Json record) {
  const auto known = std::find_if(history_.begin(), history_.end(), [&](const auto& one) { return one.slot == slot; });
  if (known != history_.end()) {
    SlotAnswer answer = *known;
    answer.repeated = true;
    return answer;
  }
  if (!history_.empty() && slot < history_.back().slot) {
    fail(
        Exit::bad_input,
        "slot {} comes before the last one recorded, {}, and is not among the {} that are: evidence is taken in order; "
        "leave its rows out",
        slot, history_.back().slot, history_.size());
  }
  for (double e : evidence) {
    if (!(e >= 0)) fail(Exit::bad_input, "evidence of {} in slot {}; it is not negative", e, slot);
  }
  SlotAnswer answer{.slot = slot, .record = std::move(record)};
  constexpr double kMost = 1e100;  // long after an alarm; keeps the state finite
  for (size_t k = 0; k < kAlternatives; ++k) {
    levels_[k] = std::min((levels_[k] + 1) * evidence[k], kMost);
    answer.level += levels_[k] / kAlternatives;
  }
  answer.alarm = answer.level >= options_.average_run_length;
  if (history_.size() == kHistory) history_.erase(history_.begin());
  history_.push_back(answer);
  return answer;
}

/// Over everything else in the state.
static std::string checksum(Json state) {
  state.erase("sha256");
  return sha256_hex(state.dump());
}

Json SequentialAlarm::to_json() const {
  Json state = {{"schema", 1},
                {"baseline", options_.baseline},
                {"average_run_length", options_.average_run_length},
                {"levels", levels_},
                {"history", Json::array()}};
  for (const SlotAnswer& answer : history_) {
    state["history"].push_back(
        {{"slot", answer.slot}, {"level", answer.level}, {"alarm", answer.alarm}, {"record", answer.record}});
  }
  state["sha256"] = checksum(state);
  return state;
}

SequentialAlarm SequentialAlarm::from_json(const Json& json, const SequentialOptions& options,
                                           const std::string& where) {
  const auto recorded = json_get<std::string>(json, "sha256", where);
  if (recorded != checksum(json)) {
    fail(
        Exit::bad_input,
        "{}: the alarm's state is damaged (its checksum does not fit); restore it from a backup, or remove it to start "
        "again",
        where);
  }
  if (const auto schema = json_get<int64_t>(json, "schema", where); schema != 1)
    fail(Exit::bad_input, "{}: schema {} of an alarm's state; this version reads 1", where, schema);
  const auto baseline = json_get<std::string>(json, "baseline", where);
  const auto length = json_get<double>(json, "average_run_length", where);
  if (baseline != options.baseline || length != options.average_run_length) {
    fail(Exit::bad_input,
         "{}: the alarm's state is of baseline \"{}\" with an average run length of {}, not of \"{}\" with {}; name "
         "another file for it, or remove this one to start again",
         where, baseline, length, options.baseline, options.average_run_length);
  }
  SequentialAlarm alarm(options);
  const auto levels = json_get<std::vector<double>>(json, "levels", where);
  const auto history = json_get<Json>(json, "history", where);
  if (levels.size() != kAlternatives || !history.is_array() ||
      !std::all_of(levels.begin(), levels.end(), [](double level) { return level >= 0 && std::isfinite(level); })) {
    fail(Exit::bad_input, "{}: the alarm's state needs {} levels and a history", where, kAlternatives);
  }
  std::copy(levels.begin(), levels.end(), alarm.levels_.begin());
  for (const Json& entry : history) {
    alarm.history_.push_back({.slot = json_get<int64_t>(entry, "slot", where),
                              .level = json_get<double>(entry, "level", where),
                              .alarm = json_get<bool>(entry, "alarm", where),
                              .record = json_get<Json>(entry, "record", where)});
  }
  return alarm;
}

std::optional<SequentialAlarm> read_alarm(const std::filesystem::path& path, const SequentialOptions& options) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  return SequentialAlarm::from_json(read_json(path), options, path.string());
}

SlotAnswer step_alarm(const std::filesystem::path& path, const SequentialOptions& options, int64_t slot,
                      const Evidence& evidence, Json record) {
  const FileLock lock(path.string() + ".lock");
  SequentialAlarm alarm = read_alarm(path, options).value_or(SequentialAlarm(options));
  SlotAnswer answer = alarm.step(slot, evidence, std::move(record));
  if (!answer.repeated) write_json(path, alarm.to_json());
  return answer;
}

}  // namespace retort
