// Rows through guards that a test writes as YAML.
#pragma once

#include <string>
#include <vector>

#include "data/guard_run.h"

namespace retort {

inline Chat text_row(const std::string& text, const std::string& place) {
  return {.place = place, .key = {}, .messages = {}, .text = text, .choices = {}};
}

inline Chat chat_row(const std::string& prompt, const std::string& answer, const std::string& place) {
  return {.place = place, .key = {}, .messages = {{"user", prompt}, {"assistant", answer}}, .text = {}, .choices = {}};
}

inline GuardSource source_of(std::vector<Chat> rows, const std::string& name) {
  return {name, [rows] {
            return [rows, i = size_t{0}](Chat& chat) mutable {
              if (i == rows.size()) return false;
              chat = rows[i++];
              return true;
            };
          }};
}

/// Rows "rows:1", "rows:2", … of plain text.
inline std::vector<Chat> text_rows(const std::vector<std::string>& texts, const std::string& name = "rows") {
  std::vector<Chat> rows;
  for (const std::string& text : texts) rows.push_back(text_row(text, fmt::format("{}:{}", name, rows.size() + 1)));
  return rows;
}

struct Guarded {
  std::vector<Chat> rows;
  std::vector<Json> audit;
  GuardTotals totals;

  /// "near rows:3": rule and place of every finding, in order.
  std::vector<std::string> found() const {
    std::vector<std::string> all;
    for (const Json& line : audit)
      all.push_back(line["rule"].get<std::string>() + " " + line["place"].get<std::string>());
    return all;
  }
};

inline GuardsOptions guards_of(const std::string& yaml) {
  return from_yaml<GuardsOptions>(Yaml::parse(yaml, "recipe.yaml"));
}

inline Guarded guard(const std::string& yaml, std::vector<Chat> rows, std::vector<Chat> held_out = {},
                     bool stop_at_refusal = true) {
  Guarded result;
  auto totals = std::make_shared<GuardTotals>();
  GuardPass pass{.rows = source_of(std::move(rows), "data.train"),
                 .options = guards_of(yaml),
                 .context = {.held_out = {source_of(std::move(held_out), "validation")},
                             .resolve = [](const std::string& path) { return std::filesystem::path(path); }},
                 .audit = [&](std::string_view line) { result.audit.push_back(parse_json(line, "audit.jsonl")); },
                 .stop_at_refusal = stop_at_refusal};
  const Stream<Chat> stream = guarded(pass, totals);
  for (Chat chat; stream(chat); chat = {}) result.rows.push_back(chat);
  result.totals = *totals;
  return result;
}

}  // namespace retort
