// `retort drift check`: traffic in slots, each slot against the profile, the decision, and what is written about it.
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/signals.h"
#include "models/served.h"
#include "monitor/alarm.h"
#include "monitor/open_metrics.h"
#include "monitor/slot.h"
#include "recipes/drift.h"
#include "recipes/version.h"
#include "report/report.h"

namespace retort {
namespace fs = std::filesystem;

namespace {

struct Slot {
  std::string name;
  std::vector<size_t> rows;
};

std::map<int64_t, Slot> slots_of(const std::vector<TrafficRow>& rows, const std::string& unit, std::string name,
                                 std::optional<Day> today) {
  std::map<int64_t, Slot> slots;
  auto put = [&](const std::string& slot, size_t row) {
    Slot& to = slots[slot_number(unit, slot)];
    to.name = slot;
    to.rows.push_back(row);
  };
  const bool timed = name.empty() && rows.front().day.has_value();
  if (!today) today = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  if (name.empty() && !timed) name = slot_name(unit, *today);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (timed && !rows[i].day)
      fail(Exit::bad_input, "{}: this row has no time, the first one has; give all rows one, or a --slot",
           rows[i].place);
    put(timed ? slot_name(unit, *rows[i].day) : name, i);
  }
  return slots;
}

std::string hash_of(const std::vector<TrafficRow>& rows, const Slot& slot, const std::string& key) {
  Sha256 hash;
  for (size_t i : slot.rows) {
    for (const auto& text : {std::optional(rows[i].text), rows[i].answer, rows[i].label}) {
      hash.update(text ? fmt::format("{} ", text->size()) : "- ");
      if (text) hash.update(*text);
    }
  }
  return keyed_hash(key, hash.hex());
}

/// The alarm across slots, in a file or for this check alone.
class Alarm {
 public:
  Alarm(fs::path path, const SequentialOptions& options) : path_(std::move(path)), options_(options), alone_(options) {}
  SlotAnswer step(int64_t slot, const Evidence& evidence, Json record) {
    if (path_.empty()) return alone_.step(slot, evidence, std::move(record));
    return step_alarm(path_, options_, slot, evidence, std::move(record));
  }
  std::vector<SlotAnswer> history() const {
    if (path_.empty()) return alone_.history();
    const auto kept = read_alarm(path_, options_);
    return kept ? kept->history() : std::vector<SlotAnswer>();
  }

 private:
  fs::path path_;
  SequentialOptions options_;
  SequentialAlarm alone_;
};

/// Why the two keys turned, for people.
void add_reasons(const Json& record, Json& reasons) {
  for (const Json& signal : record["signals"]) {
    if (signal["alarm"] != Json(true)) continue;
    reasons.push_back(fmt::format("{}: {} ({}), effect {:.3g} above {:.3g}, adjusted p {:.2g}",
                                  record["slot"].get<std::string>(), signal["signal"].get<std::string>(),
                                  signal["detector"].get<std::string>(), signal["effect"].get<double>(),
                                  signal["limit"].get<double>(), signal["p_adjusted"].get<double>()));
  }
}

}  // namespace

Json check_drift(const Recipe& recipe, const DriftRequest& request, const ProgressSink& progress) {
  const DriftSetup setup = set_up_drift(recipe, progress);
  const DriftOptions& options = setup.options;
  if (request.rows.empty() && request.data.empty() && options.traffic.empty())
    fail(Exit::usage, "give the traffic: --data FILE, or drift.traffic in the recipe");
  if (!request.slot.empty()) slot_number(options.slot, request.slot);
  const auto [profile, profile_hash] = own_profile(setup);
  Measurer measurer(setup.model, measuring(setup, recipe, profile.identity.gamma));
  require_own(profile, measurer, setup);
  const std::vector<TrafficRow> rows = !request.rows.empty()  ? request.rows
                                       : request.data.empty() ? traffic_of(options.traffic, options.order)
                                                              : log_rows(request.data);
  if (rows.empty()) fail(Exit::bad_input, "the traffic has no rows");
  const std::map<int64_t, Slot> slots = slots_of(rows, options.slot, request.slot, request.today);
  const std::vector<RowMeasure> measures = measured(measurer, rows, "traffic", progress);

  const fs::path state = request.state.empty() ? fs::path(options.state) : request.state;
  Alarm alarm(state, {.average_run_length = options.average_run_length, .baseline = profile_hash});
  Json notes = Json::array(), reasons = Json::array(), checked = Json::array();
  std::vector<std::string> repeated;
  bool sequential = false, keys = false;
  for (const auto& [number, slot] : slots) {
    if (stop_signal())
      fail(Exit::retry, "stopped by a signal before slot {}; the next call goes on from here", slot.name);
    if (static_cast<int64_t>(slot.rows.size()) < options.min_rows) {
      notes.push_back(fmt::format("{}: {} rows, {} are needed: nothing can be said", slot.name, slot.rows.size(),
                                  options.min_rows));
      continue;
    }
    Profile fresh;
    fresh.identity = profile.identity;
    for (size_t i : slot.rows) fresh.add(measures[i]);
    const SlotCheck check = check_slot(profile, fresh, options);
    if (check.checks.empty()) {
      notes.push_back(fmt::format("{}: no signal can be compared: {}", slot.name, fmt::join(check.skipped, "; ")));
      continue;
    }
    Json record = check.to_json();
    record["slot"] = slot.name;
    record["data"] = hash_of(rows, slot, setup.key);
    const std::string data = record["data"].get<std::string>();
    const SlotAnswer answer = alarm.step(number, check.evidence, std::move(record));
    if (answer.repeated && answer.record["data"] == Json(data))
      repeated.push_back(slot.name);
    else if (answer.repeated)
      notes.push_back(fmt::format("{}: checked before, with other rows; that answer stands", slot.name));
    if (answer.record["two_keys"] == Json(true)) keys = true;
    sequential |= answer.alarm;
    add_reasons(answer.record, reasons);
    checked.push_back(slot.name);
  }
  if (!repeated.empty())
    notes.push_back(
        fmt::format("{}{}: checked before; {}", repeated.front(),
                    repeated.size() == 1 ? "" : fmt::format(" to {}, {} slots", repeated.back(), repeated.size()),
                    repeated.size() == 1 ? "that answer stands" : "those answers stand"));

  CanaryDivergence canary;
  const bool canaries = profile.canaries.has_value();
  if (canaries) {
    const auto texts = canary_texts_of(options);
    if (request.deployed.empty()) {
      canary = divergence(*profile.canaries, measurer.model(), measurer.tokenizer(), texts, setup.key);
    } else {
      const auto model =
          ServedModel::open(request.deployed, {.threads = static_cast<int>(recipe.threads), .exact = true});
      canary = divergence(*profile.canaries, *model, *Tokenizer::open(request.deployed), texts, setup.key);
    }
  }
  const bool changed = canaries && canary.mean > options.canaries.max_kl;
  // One slot alone can only be judged by itself; several share one alarm, whose false-alarm rate is known.
  const bool across = !state.empty() || slots.size() > 1;
  Json history = Json::array();
  for (const SlotAnswer& answer : alarm.history()) {
    Json slot = answer.record;
    slot["number"] = answer.slot;
    slot["level"] = answer.level;
    slot["alarm"] = answer.alarm;
    history.push_back(std::move(slot));
  }
  if (changed)
    reasons.push_back(fmt::format("canaries: what is deployed answers differently, mean KL {:.3g} above {:.3g}",
                                  canary.mean, options.canaries.max_kl));
  Json drift{{"decision",
              {{"alarm", changed || (across ? sequential : keys)},
               {"compared", !checked.empty()},
               {"rule", across ? "sequential" : "two_keys"},
               {"two_keys", keys},
               {"sequential", sequential},
               {"deployment_changed", changed},
               {"reasons", reasons}}},
             {"checked", checked},
             {"notes", notes},
             {"alpha", options.alpha},
             {"average_run_length", options.average_run_length},
             {"baseline",
              {{"profile", setup.profile.string()},
               {"sha256", profile_hash},
               {"model", profile.identity.model},
               {"model_sha256", profile.identity.model_sha256},
               {"rows", profile.rows},
               {"calibrated", !profile.nulls.empty()},
               {"block", profile.block}}},
             {"slots", history}};
  if (canaries)
    drift["canaries"] = {{"kl_mean", canary.mean}, {"kl_largest", canary.largest}, {"limit", options.canaries.max_kl}};
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  Json report{{"schema", 1},
              {"name", recipe.name},
              {"created", slot_name("day", std::chrono::floor<std::chrono::days>(now))},
              {"checked_at", now.time_since_epoch().count()},
              {"retort", version()},
              {"drift", drift},
              {"recipe", recipe.text}};
  const fs::path out = request.out.empty() ? recipe.output_dir / recipe.name / "drift" : request.out;
  fs::create_directories(out);
  const FileLock lock(out / ".lock");
  write_json(out / "report.json", report);
  write_atomic(out / "report.html", render_report(report));
  if (!request.metrics.empty()) write_atomic(request.metrics, drift_metrics(report));
  return report;
}

int drift_exit(const Json& report) {
  constexpr int kInconclusive = 13;  // as of a retraining
  const Json& decision = report["drift"]["decision"];
  if (decision["alarm"] == Json(true)) return static_cast<int>(Exit::drift);
  return decision["compared"] == Json(true) ? 0 : kInconclusive;
}

std::string drift_metrics(const Json& report) {
  const Json& drift = report["drift"];
  const OpenMetrics::Labels whose{{"recipe", report["name"].get<std::string>()}};
  OpenMetrics metrics;
  auto one = [&](const char* name, const char* help, double value) {
    metrics.gauge(name, help);
    metrics.sample(whose, value);
  };
  one("retort_drift_alarm", "1 when retraining is due.", drift["decision"]["alarm"] == Json(true));
  one("retort_drift_slots_checked", "Slots that the check could compare; 0: it says nothing.",
      static_cast<double>(drift["checked"].size()));
  one("retort_drift_checked_timestamp_seconds", "When the last check ended, seconds since 1970.",
      report["checked_at"].get<double>());
  one("retort_drift_average_run_length", "The e-detector alarms at this level.",
      drift["average_run_length"].get<double>());
  if (drift.contains("canaries"))
    one("retort_drift_canary_kl", "Mean KL divergence of the deployment from the profile's model on fixed texts, nats.",
        drift["canaries"]["kl_mean"].get<double>());
  if (drift["slots"].empty()) return metrics.text();
  const Json& slot = drift["slots"].back();
  one("retort_drift_level", "The e-detector after the last slot.", slot["level"].get<double>());
  one("retort_drift_rows", "Rows of the last slot.", slot["rows"].get<double>());
  auto each = [&](const char* name, const char* help, const char* key) {
    metrics.gauge(name, help);
    for (const Json& signal : slot["signals"]) {
      if (!signal.contains(key)) continue;
      OpenMetrics::Labels labels = whose;
      labels.emplace_back("signal", signal["signal"].get<std::string>());
      labels.emplace_back("detector", signal["detector"].get<std::string>());
      metrics.sample(labels, signal[key].is_boolean() ? signal[key].get<bool>() : signal[key].get<double>());
    }
  };
  each("retort_drift_signal_mean", "Mean of the signal over the last slot, in its own unit.", "mean");
  each("retort_drift_signal_effect", "How far the last slot is from the baseline.", "effect");
  each("retort_drift_signal_limit", "The effect that matters.", "limit");
  each("retort_drift_signal_p_value", "P-value of the last slot, adjusted for the number of signals.", "p_adjusted");
  each("retort_drift_signal_alarm", "1 when the last slot is significant and its effect above the limit.", "alarm");
  return metrics.text();
}

}  // namespace retort
