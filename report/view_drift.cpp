// Traffic against the baseline, slot by slot.
#include <algorithm>
#include <map>
#include <vector>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

Json fact(const std::string& label, const std::string& value) { return {{"label", label}, {"value", value}}; }

bool is_true(const Json& object, const char* pointer) { return value_at(object, pointer) == Json(true); }

/// One signal through one detector, over all slots. An entry is null where a slot does not have it.
struct Series {
  std::string signal, detector, unit;
  std::vector<const Json*> entries;
};

std::vector<Series> series_of(const Json& slots) {
  std::vector<Series> all;
  for (size_t i = 0; i < slots.size(); ++i) {
    for (const Json& entry : list_at(slots[i], "/signals")) {
      const std::string signal = text_at(entry, "/signal"), detector = text_at(entry, "/detector");
      auto it = std::find_if(all.begin(), all.end(),
                             [&](const Series& s) { return s.signal == signal && s.detector == detector; });
      if (it == all.end()) it = all.insert(it, {signal, detector, text_at(entry, "/unit"), {}});
      it->entries.resize(slots.size());
      it->entries[i] = &entry;
    }
  }
  for (Series& series : all) series.entries.resize(slots.size());
  return all;
}

std::string title_case(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  if (!name.empty() && name[0] >= 'a' && name[0] <= 'z') name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

Json signal_view(const Series& series, const Json& slots) {
  Json rows = Json::array();
  const Json* last = nullptr;
  int64_t alarms = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (!series.entries[i]) continue;
    const Json& entry = *series.entries[i];
    last = &entry;
    alarms += is_true(entry, "/alarm");
    rows.push_back({{"slot", text_at(slots[i], "/slot")},
                    {"rows", show_count(value_at(entry, "/rows"))},
                    {"mean", show_number(value_at(entry, "/mean"))},
                    {"statistic", show_number(value_at(entry, "/statistic"))},
                    {"threshold", show_number(value_at(entry, "/threshold"))},
                    {"p", show_number(value_at(entry, "/p_adjusted"), 2)},
                    {"effect", show_number(value_at(entry, "/effect"))},
                    {"significant", is_true(entry, "/significant")},
                    {"large", is_true(entry, "/large")},
                    {"alarm", is_true(entry, "/alarm")}});
  }
  std::string usual;
  if (last && value_at(*last, "/baseline/mean").is_number())
    usual =
        fmt::format("usual: mean {}, from {} to {} in nine rows of ten", show_number(value_at(*last, "/baseline/mean")),
                    show_number(value_at(*last, "/baseline/p05")), show_number(value_at(*last, "/baseline/p95")));
  return {{"title", title_case(series.signal)},
          {"detector", series.detector},
          {"unit", series.unit},
          {"usual", usual},
          {"limit", last ? show_number(value_at(*last, "/limit")) : "–"},
          {"calibrated", last && is_true(*last, "/calibrated")},
          {"alarms", alarms},
          {"rows", rows}};
}

}  // namespace

Json drift_view(const Json& report) {
  const Json& drift = value_at(report, "/drift");
  if (!drift.is_object()) return nullptr;
  const Json& slots = list_at(drift, "/slots");
  Json signals = Json::array(), levels = Json::array();
  for (const Series& series : series_of(slots)) signals.push_back(signal_view(series, slots));
  for (const Json& slot : slots)
    levels.push_back({{"slot", text_at(slot, "/slot")},
                      {"rows", show_count(value_at(slot, "/rows"))},
                      {"level", show_number(value_at(slot, "/level"))},
                      {"both_keys", is_true(slot, "/two_keys")},
                      {"alarm", is_true(slot, "/alarm")}});
  Json notes = Json::array(), reasons = Json::array();
  for (const Json& note : list_at(drift, "/notes")) notes.push_back(show_any(note));
  for (const Json& reason : list_at(drift, "/decision/reasons")) reasons.push_back(show_any(reason));
  Json facts = Json::array();
  facts.push_back(fact("Champion", text_at(drift, "/baseline/model")));
  facts.push_back(fact("Rows in the baseline", show_count(value_at(drift, "/baseline/rows"))));
  facts.push_back(fact("Calibrated in blocks of", is_true(drift, "/baseline/calibrated")
                                                      ? show_count(value_at(drift, "/baseline/block")) + " rows"
                                                      : "not calibrated"));
  if (value_at(drift, "/canaries").is_object())
    facts.push_back(fact("Canaries, mean KL", show_number(value_at(drift, "/canaries/kl_mean")) + " nats, limit " +
                                                  show_number(value_at(drift, "/canaries/limit"))));
  return {{"sequential", text_at(drift, "/decision/rule") == "sequential"},
          {"alpha", show_percent(value_at(drift, "/alpha"), 0)},
          {"run_length", show_number(value_at(drift, "/average_run_length"))},
          {"reasons", reasons},
          {"notes", notes},
          {"signals", signals},
          {"levels", levels},
          {"facts", facts},
          {"profile", text_at(drift, "/baseline/profile")},
          {"sha256", text_at(drift, "/baseline/sha256")}};
}

Json drift_title(const Json& report) {
  const Json& decision = value_at(report, "/drift/decision");
  const Json& reasons = list_at(decision, "/reasons");
  if (!is_true(decision, "/alarm") && value_at(decision, "/compared") == Json(false))
    return {{"status", "plain"},
            {"status_text", "Nothing was compared"},
            {"sentence", "This check says nothing about drift: the notes have the reasons."}};
  if (!is_true(decision, "/alarm"))
    return {{"status", "good"},
            {"status_text", "No drift"},
            {"sentence", reasons.empty() ? "The traffic looks like the baseline."
                                         : "Some slots differ, but not for long enough to be more than chance."}};
  const bool changed = is_true(decision, "/deployment_changed");
  const bool moved = is_true(decision, text_at(decision, "/rule") == "sequential" ? "/sequential" : "/two_keys");
  return {{"status", "bad"},
          {"status_text", moved ? "Drift: retraining is due" : "The deployment has changed"},
          {"sentence", moved && changed ? "The domain has moved, and what is deployed is not what was profiled."
                       : moved          ? "The traffic no longer looks like the baseline."
                                        : "What is deployed answers fixed texts differently from what was profiled."}};
}

Json drift_tiles(const Json& report) {
  const Json& drift = value_at(report, "/drift");
  const Json& slots = list_at(drift, "/slots");
  if (slots.empty()) return Json::array();
  const Json& last = slots.back();
  int64_t beyond = 0;
  for (const Json& signal : list_at(last, "/signals")) beyond += is_true(signal, "/alarm");
  const auto count = static_cast<int64_t>(list_at(last, "/signals").size());
  Json tiles = Json::array();
  tiles.push_back({{"label", "Last slot"},
                   {"value", text_at(last, "/slot")},
                   {"note", show_count(value_at(last, "/rows")) + " rows"}});
  tiles.push_back({{"label", "Signals beyond both keys"},
                   {"value", fmt::format("{} of {}", beyond, count)},
                   {"note", "in the last slot"}});
  tiles.push_back({{"label", "E-detector"},
                   {"value", show_number(value_at(last, "/level"))},
                   {"note", "alarm at " + show_number(value_at(drift, "/average_run_length"))}});
  if (value_at(drift, "/canaries").is_object())
    tiles.push_back({{"label", "Canaries, mean KL"},
                     {"value", show_number(value_at(drift, "/canaries/kl_mean"))},
                     {"unit", "nats"},
                     {"note", "limit " + show_number(value_at(drift, "/canaries/limit"))}});
  return tiles;
}

Json drift_charts(const Json& report) {
  const Json& slots = list_at(report, "/drift/slots");
  Json names = Json::array(), levels = Json::array(), signals = Json::array();
  for (const Json& slot : slots) {
    names.push_back(text_at(slot, "/slot"));
    levels.push_back({value_at(slot, "/level"), value_at(slot, "/alarm")});
  }
  for (const Series& series : series_of(slots)) {
    Json points = Json::array();
    Json limit = nullptr;
    for (const Json* entry : series.entries) {
      if (!entry) {
        points.push_back(nullptr);
        continue;
      }
      limit = value_at(*entry, "/limit");
      points.push_back({value_at(*entry, "/effect"), value_at(*entry, "/significant"), value_at(*entry, "/alarm")});
    }
    signals.push_back({{"points", points}, {"limit", limit}});
  }
  return {{"slots", names},
          {"levels", levels},
          {"run_length", value_at(report, "/drift/average_run_length")},
          {"signals", signals}};
}

}  // namespace retort
