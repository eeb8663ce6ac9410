// What evaluators found: each figure for every model, and the figures that only some kinds have.
#include <algorithm>
#include <map>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

bool is_share(const Json& entry) {
  const Json& unit = value_at(entry, "/unit");
  // Reports from before evaluators had units.
  return unit.is_string() ? unit == "share" : text_at(entry, "/kind") != "perplexity";
}

/// -1: lower is better; 0: neither.
int better(const Json& entry) {
  const std::string text = text_at(entry, "/better");
  if (text.empty() && value_at(entry, "/unit").is_null()) return text_at(entry, "/kind") == "perplexity" ? -1 : 1;
  return text == "lower" ? -1 : text == "higher" ? 1 : 0;
}

std::string label_of(const Json& entry) {
  std::string label = text_at(entry, "/name");
  if (label.empty()) label = text_at(entry, "/kind");
  std::replace(label.begin(), label.end(), '_', ' ');
  if (!label.empty() && label[0] >= 'a' && label[0] <= 'z') label[0] = static_cast<char>(label[0] - 'a' + 'A');
  return label;
}

std::string show_metric(const Json& entry, const Json& value) {
  return is_share(entry) ? show_percent(value, 1) : show_number(value, 3);
}

std::string change_of(const Json& entry, const Json& base) {
  const Json &value = value_at(entry, "/value"), &before = value_at(base, "/value");
  if (!value.is_number() || !before.is_number()) return "";
  const double difference = value.get<double>() - before.get<double>();
  const std::string text = is_share(entry) ? show_number(100 * difference) + " pts" : show_number(difference);
  return difference > 0 ? "+" + text : text;
}

/// A model's figures that are single numbers: "bits per byte 1.23".
Json facts_of(const Json& entry) {
  Json facts = Json::array();
  const auto add = [&](const std::string& key, const std::string& value) {
    std::string label = key;
    std::replace(label.begin(), label.end(), '_', ' ');
    facts.push_back({{"label", label}, {"value", value}});
  };
  static const std::vector<std::string> shown = {"kind", "data",    "on",   "value",  "stderr",  "n",
                                                 "name", "seconds", "unit", "better", "majority"};
  for (const auto& [key, value] : entry.items()) {
    if (std::find(shown.begin(), shown.end(), key) != shown.end() || value.is_structured()) continue;
    if (key.ends_with("_stderr")) continue;  // beside its figure
    const auto show = [&key](const Json& figure) {
      if (!figure.is_number()) return show_any(figure);
      return key.ends_with("seconds") ? show_seconds(figure) : show_number(figure);
    };
    const Json& error = value_at(entry, "/" + key + "_stderr");
    add(key, error.is_number() && error != 0 ? show(value) + " ± " + show(error) : show(value));
  }
  const Json& temperature = value_at(entry, "/temperature");
  if (temperature.is_object()) {
    const Json& error = value_at(temperature, "/fitted_stderr");
    add("fitted temperature", show_number(value_at(temperature, "/fitted")) +
                                  (error.is_number() ? " ± " + show_number(error) : std::string()));
    add("error with it, on the other half", fmt::format("{} → {}", show_percent(value_at(temperature, "/error_before")),
                                                        show_percent(value_at(temperature, "/error_after"))));
    add("log loss with it", fmt::format("{} → {}", show_number(value_at(temperature, "/log_loss_before")),
                                        show_number(value_at(temperature, "/log_loss_after"))));
  }
  return facts;
}

/// A table of one model, from a list of objects: the keys are the columns.
Json table_of(const Json& list, const std::string& title,
              const std::vector<std::pair<std::string, std::string>>& columns) {
  Json heads = Json::array(), rows = Json::array();
  for (const auto& [key, head] : columns) heads.push_back(head);
  for (const Json& item : list) {
    Json cells = Json::array();
    for (const auto& [key, head] : columns) {
      const Json& value = value_at(item, "/" + key);
      cells.push_back(value.is_number_integer() ? show_count(value)
                      : value.is_number()       ? show_number(value)
                                                : show_any(value));
    }
    rows.push_back(cells);
  }
  return {{"title", title}, {"heads", heads}, {"rows", rows}};
}

/// Needles: a row a length, a column a depth, each cell with the share that was found for its colour.
Json grid_of(const Json& needles) {
  std::vector<std::string> depths, lengths;
  std::map<std::string, std::map<std::string, Json>> cells;
  for (const Json& needle : needles) {
    const std::string depth = show_percent(value_at(needle, "/depth"), 0),
                      length = show_count(value_at(needle, "/length"));
    if (std::find(depths.begin(), depths.end(), depth) == depths.end()) depths.push_back(depth);
    if (std::find(lengths.begin(), lengths.end(), length) == lengths.end()) lengths.push_back(length);
    cells[length][depth] = value_at(needle, "/found");
  }
  Json rows = Json::array();
  for (const std::string& length : lengths) {
    Json row = Json::array();
    for (const std::string& depth : depths) {
      const Json& found = cells[length][depth];
      const double share = found.is_number() ? found.get<double>() : 0;
      row.push_back({{"text", show_percent(found, 0)}, {"tone", share >= 0.75 ? "good" : share < 0.25 ? "bad" : ""}});
    }
    rows.push_back({{"length", length}, {"cells", row}});
  }
  return {{"depths", depths}, {"rows", rows}};
}

Json details_of(const Json& entry) {
  Json details = {{"on", model_label(text_at(entry, "/on"))}, {"facts", facts_of(entry)}, {"tables", Json::array()}};
  Json& tables = details["tables"];
  if (const Json& bins = list_at(entry, "/reliability"); !bins.empty())
    tables.push_back(
        table_of(bins, "Reliability", {{"confidence", "Confidence"}, {"accuracy", "Right"}, {"rows", "Rows"}}));
  if (const Json& positions = list_at(entry, "/positions"); !positions.empty())
    tables.push_back(
        table_of(positions, "Perplexity by position",
                 {{"from", "From"}, {"to", "To"}, {"perplexity", "Perplexity"}, {"stderr", "Std. error"}}));
  if (const Json& prices = list_at(entry, "/prices"); !prices.empty())
    tables.push_back(table_of(prices, "Price table",
                              {{"name", "Price"}, {"input", "Input"}, {"output", "Output"}, {"both", "Both"}}));
  if (const Json& needles = list_at(entry, "/needles"); !needles.empty()) details["grid"] = grid_of(needles);
  return details;
}

}  // namespace

std::string model_label(const std::string& on) {
  if (on == "base") return "Base model";
  if (on == "trained") return "Trained";
  if (on.starts_with("teacher")) return "Teacher" + on.substr(7);
  if (on.starts_with("shipped:")) return "Shipped " + on.substr(8);
  return on;
}

std::vector<EvaluationGroup> evaluation_groups(const Json& report) {
  std::vector<EvaluationGroup> groups;
  for (const Json& entry : list_at(report, "/evaluate")) {
    const std::string label = label_of(entry), data = text_at(entry, "/data");
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const EvaluationGroup& g) { return g.label == label && g.data == data; });
    if (it == groups.end()) it = groups.insert(it, {label, data, is_share(entry), better(entry), {}});
    it->entries.push_back(&entry);
  }
  const auto rank = [](const Json* entry) {
    const std::string on = text_at(*entry, "/on");
    return on.starts_with("teacher") ? -1 : on == "base" ? 0 : on == "trained" ? 1 : 2;
  };
  for (EvaluationGroup& group : groups)
    std::stable_sort(group.entries.begin(), group.entries.end(),
                     [&](const Json* a, const Json* b) { return rank(a) < rank(b); });
  return groups;
}

const Json* EvaluationGroup::on(const std::string& prefix) const {
  for (const Json* entry : entries)
    if (text_at(*entry, "/on").starts_with(prefix)) return entry;
  return nullptr;
}

Json evaluation_tile(const std::vector<EvaluationGroup>& groups) {
  if (groups.empty()) return nullptr;
  // The first of a task, else the first.
  const auto of_task = std::find_if(groups.begin(), groups.end(),
                                    [](const EvaluationGroup& group) { return group.share && group.better > 0; });
  const EvaluationGroup& group = of_task == groups.end() ? groups.front() : *of_task;
  const Json *base = group.on("base"), *after = group.on("shipped:");
  if (!after) after = group.on("trained");
  if (!after) return nullptr;
  const auto value_of = [](const Json& entry) { return show_metric(entry, value_at(entry, "/value")); };
  const auto with_error = [&](const Json& entry) {
    const Json& error = value_at(entry, "/stderr");
    return value_of(entry) + (error.is_number() ? " ± " + show_metric(entry, error) : "");
  };
  Json tile = {{"label", group.label}, {"value", value_of(*after)}, {"wide", true}};
  std::string note = model_label(text_at(*after, "/on")) + " " + with_error(*after);
  if (base && base != after) {
    tile["before"] = value_of(*base);
    note = "base " + with_error(*base) + ", " + note;
  }
  tile["note"] = note + fmt::format("; {} rows", show_count(value_at(*after, "/n")));
  return tile;
}

Json evaluations_view(const std::vector<EvaluationGroup>& groups) {
  Json view = Json::array();
  for (const EvaluationGroup& group : groups) {
    Json rows = Json::array(), details = Json::array();
    const Json* base = group.on("base");
    std::string majority;
    for (const Json* entry : group.entries) {
      const Json& error = value_at(*entry, "/stderr");
      if (value_at(*entry, "/majority").is_number()) majority = show_percent(value_at(*entry, "/majority"));
      rows.push_back({{"on", model_label(text_at(*entry, "/on"))},
                      {"value", show_metric(*entry, value_at(*entry, "/value"))},
                      {"stderr", error.is_number() ? "± " + show_metric(*entry, error) : ""},
                      {"n", show_count(value_at(*entry, "/n"))},
                      {"change", base && entry != base ? change_of(*entry, *base) : ""}});
      Json more = details_of(*entry);
      if (!more["facts"].empty() || !more["tables"].empty() || more.contains("grid"))
        details.push_back(std::move(more));
    }
    const std::string unit = group.share ? "" : text_at(*group.entries.front(), "/unit");
    const char* direction = group.better < 0   ? "lower is better"
                            : group.better > 0 ? "higher is better"
                                               : "neither end is better";
    bool reliability = false;
    for (const Json* entry : group.entries) reliability |= !list_at(*entry, "/reliability").empty();
    view.push_back({{"title", group.label},
                    {"data", group.data},
                    {"direction", (unit.empty() ? "" : unit + ", ") + direction},
                    {"majority", majority},
                    {"reliability", reliability},
                    {"rows", rows},
                    {"details", details}});
  }
  return view;
}

Json evaluation_charts(const std::vector<EvaluationGroup>& groups) {
  Json charts = Json::array();
  for (const EvaluationGroup& group : groups) {
    Json bars = Json::array(), reliability = Json::array();
    Json majority = nullptr;
    for (const Json* entry : group.entries) {
      const std::string on = model_label(text_at(*entry, "/on"));
      bars.push_back({on, value_at(*entry, "/value"), value_at(*entry, "/stderr")});
      if (value_at(*entry, "/majority").is_number()) majority = (*entry)["majority"];
      Json points = Json::array();
      for (const Json& bin : list_at(*entry, "/reliability"))
        points.push_back({value_at(bin, "/confidence"), value_at(bin, "/accuracy"), value_at(bin, "/rows")});
      if (!points.empty()) reliability.push_back({on, points});
    }
    charts.push_back({{"percent", group.share}, {"majority", majority}, {"bars", bars}, {"reliability", reliability}});
  }
  return charts;
}

}  // namespace retort
