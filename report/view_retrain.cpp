// What a slot of `retort retrain` decided, and why.
#include <map>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

Json fact(const std::string& label, const std::string& value) { return {{"label", label}, {"value", value}}; }

struct Wording {
  const char *status, *text, *sentence;
};
Wording wording(const std::string& decision) {
  static const std::map<std::string, Wording> words = {
      {"nothing_due", {"plain", "Nothing is due", "The champion goes on serving."}},
      {"due", {"bad", "A new model is due", "Nothing was trained: only the question was asked."}},
      {"rolled_back", {"bad", "Promotion taken back", "The model before it serves again."}},
      {"promoted", {"good", "Promoted", "The challenger is the champion now."}},
      {"rejected", {"bad", "Rejected", "The challenger is worse than is allowed; the champion goes on serving."}},
      {"inconclusive",
       {"plain", "Inconclusive",
        "The rows do not tell whether the challenger is good enough; the champion goes on "
        "serving."}},
      {"guard_refused", {"bad", "A data guard refused", "Nothing was trained on these rows."}},
      {"contaminated",
       {"bad", "Contaminated rows", "Training rows repeat held-out ones; nothing was trained on them."}},
      {"gate_refused", {"bad", "Refused by the export gate", "An exported file differs from the trained model."}},
  };
  const auto found = words.find(decision);
  return found == words.end() ? Wording{"plain", "Unknown", ""} : found->second;
}

/// "+0.012"
std::string show_signed(const Json& value) {
  const std::string text = show_number(value);
  return value.is_number() && value.get<double>() > 0 ? "+" + text : text;
}

std::string bounds(const Json& low, const Json& high) {
  return low.is_number() && high.is_number() ? show_signed(low) + " to " + show_signed(high) : "–";
}

std::string short_hash(const Json& object, const char* pointer) {
  const std::string hash = text_at(object, pointer);
  return hash.substr(0, 12);
}

Json comparison(const Json& all) {
  return {{"name", text_at(all, "/name")},
          {"rows", show_count(value_at(all, "/rows"))},
          {"champion", show_number(value_at(all, "/champion"))},
          {"challenger", show_number(value_at(all, "/challenger"))},
          {"difference", show_signed(value_at(all, "/difference"))},
          {"bounds", bounds(value_at(all, "/low"), value_at(all, "/high"))},
          {"p", show_number(value_at(all, "/not_worse_p_value"), 2)},
          {"worse", show_number(value_at(all, "/worse_p_adjusted"), 2)}};
}

Json limits_of(const Json& gate) {
  Json limits = Json::array();
  for (const char* list : {"/floors", "/limits"}) {
    for (const Json& limit : list_at(gate, list)) {
      std::string wanted;
      if (value_at(limit, "/at_least").is_number()) wanted = "≥ " + show_number(value_at(limit, "/at_least"));
      if (value_at(limit, "/at_most").is_number()) wanted = "≤ " + show_number(value_at(limit, "/at_most"));
      const bool certain = !value_at(limit, "/low").is_number();
      limits.push_back(
          {{"name", text_at(limit, "/name")},
           {"value", show_number(value_at(limit, "/value"))},
           {"bounds",
            certain ? "" : show_number(value_at(limit, "/low")) + " to " + show_number(value_at(limit, "/high"))},
           {"limit", wanted}});
    }
  }
  return limits;
}

Json texts(const Json& list) {
  Json shown = Json::array();
  for (const Json& item : list) shown.push_back(show_any(item));
  return shown;
}

}  // namespace

Json retrain_view(const Json& report) {
  const Json& retrain = value_at(report, "/retrain");
  if (!retrain.is_object()) return nullptr;
  Json facts = Json::array(), rows = Json::array();
  const auto add = [&](const char* label, const std::string& value) {
    if (!value.empty() && value != "–") facts.push_back(fact(label, value));
  };
  const auto yes_or_no = [](const Json& value) {
    return value.is_boolean() ? std::string(value.get<bool>() ? "yes" : "no") : std::string("not known");
  };
  add("Model", text_at(retrain, "/model"));
  add("Slot", text_at(retrain, "/slot"));
  add("Rows to train on", show_count(value_at(retrain, "/facts/rows")));
  add("Of them new to the champion", show_count(value_at(retrain, "/facts/new_rows")));
  if (value_at(retrain, "/facts/champion") == Json(true)) {
    add("Drift", yes_or_no(value_at(retrain, "/facts/drift")));
    add("Drift that harms", yes_or_no(value_at(retrain, "/facts/harmful")));
    add("Age of the champion", show_number(value_at(retrain, "/facts/age_days")) + " days");
  }
  add("Champion before", short_hash(retrain, "/champion_before/sha256"));
  add("Challenger", short_hash(retrain, "/challenger/sha256"));
  add("Champion now", short_hash(retrain, "/champion/sha256"));
  add("Margin", show_number(value_at(retrain, "/gate/margin")));
  add("Level of each test", show_percent(value_at(retrain, "/gate/alpha"), 0));
  add("Test", text_at(retrain, "/gate/test"));
  const Json& gate = value_at(retrain, "/gate");
  if (value_at(gate, "/all").is_object()) rows.push_back(comparison(gate["all"]));
  for (const Json& slice : list_at(gate, "/slices")) rows.push_back(comparison(slice));
  const std::string decision = text_at(retrain, "/decision");
  const bool trained = value_at(retrain, "/challenger").is_object();
  return {{"reasons", texts(list_at(retrain, "/reasons"))},
          {"due", trained ? texts(list_at(retrain, "/due")) : Json::array()},
          {"drift", texts(list_at(retrain, "/drift/reasons"))},
          {"drift_report", value_at(retrain, "/drift").is_object()},
          {"facts", facts},
          {"rows", rows},
          {"limits", limits_of(gate)},
          {"key", text_at(retrain, "/key")},
          {"trained", trained || value_at(report, "/train").is_object()}};
}

Json retrain_title(const Json& report) {
  const Wording words = wording(text_at(report, "/retrain/decision"));
  return {{"status", words.status}, {"status_text", words.text}, {"sentence", words.sentence}};
}

Json retrain_tiles(const Json& report) {
  const Json& retrain = value_at(report, "/retrain");
  Json tiles = Json::array();
  tiles.push_back({{"label", "Slot"}, {"value", text_at(retrain, "/slot")}, {"note", text_at(retrain, "/model")}});
  if (const Json& rows = value_at(retrain, "/facts/new_rows"); rows.is_number())
    tiles.push_back({{"label", "New rows"},
                     {"value", show_count(rows)},
                     {"note", "of " + show_count(value_at(retrain, "/facts/rows"))}});
  if (const Json& all = value_at(retrain, "/gate/all"); all.is_object()) {
    tiles.push_back({{"label", "Challenger less champion"},
                     {"value", show_signed(value_at(all, "/difference"))},
                     {"note", bounds(value_at(all, "/low"), value_at(all, "/high")) + ", " +
                                  show_count(value_at(all, "/rows")) + " rows"}});
  } else if (value_at(retrain, "/facts/drift").is_boolean()) {
    tiles.push_back({{"label", "Drift"},
                     {"value", retrain["facts"]["drift"].get<bool>() ? "yes" : "no"},
                     {"note", "the traffic against the champion's baseline"}});
  }
  if (const std::string now = short_hash(retrain, "/champion/sha256"); !now.empty())
    tiles.push_back({{"label", "Champion"}, {"value", now.substr(0, 8)}, {"note", "SHA-256 begins so"}});
  return tiles;
}

}  // namespace retort
