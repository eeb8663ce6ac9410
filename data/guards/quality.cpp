// The rules of web corpora as measurements. They were made for web pages: dropping by them destroys code, JSON and
// short answers, so they report unless the recipe says otherwise.
#include <algorithm>

#include "data/guard.h"
#include "data/text_measures.h"

namespace retort {
namespace {

struct QualityOptions : GuardOptions {
  std::vector<std::string> rules = {"gopher", "c4", "fineweb"};
  std::map<std::string, double> limits;
};

/// The rules that a name in `rules` stands for: one, or those of a family.
std::vector<size_t> rules_named(const std::string& name) {
  std::vector<size_t> found;
  for (size_t i = 0; i < text_rules().size(); ++i) {
    const std::string_view rule = text_rules()[i].name;
    if (rule == name || rule.starts_with(name + "_")) found.push_back(i);
  }
  return found;
}

const Schema<QualityOptions>& schema_of(QualityOptions*) {
  using O = QualityOptions;
  std::vector<std::string> names = {"gopher", "c4", "fineweb"};
  for (const TextRule& rule : text_rules()) names.push_back(rule.name);
  static const auto schema =
      guard_schema<O>("quality", "Measures of web corpora, of the answers or the text.", false)
          .field("rules", &O::rules, "families or single rules that are measured", {.one_of = names})
          .field("limits", &O::limits, "rule: limit, where it is another than its authors'")
          .rule([](const O& options, const Yaml& node) {
            std::vector<std::string> rules;
            for (const TextRule& rule : text_rules()) rules.push_back(rule.name);
            for (const auto& [rule, limit] : options.limits)
              if (std::find(rules.begin(), rules.end(), rule) == rules.end())
                node["limits"][rule].refuse("unknown rule: " + not_among(rule, rules));
          });
  return schema;
}

/// What the model learns to write: the assistant's messages, or the plain text. Kept in `joined` where it is no part of
/// the row.
std::string_view measured_text(const Chat& chat, std::string& joined) {
  if (chat.messages.empty()) return chat.text;
  joined = chat.text;
  for (const Message& message : chat.messages) {
    if (message.role != "assistant") continue;
    if (!joined.empty()) joined += "\n\n";
    joined += message.content;
  }
  return joined;
}

/// A rule that is looked for.
struct Limit {
  size_t rule;  ///< index into text_rules()
  double limit;
  std::string text;  ///< ", at most 0.2"
};

Look make(const GuardOptions& common, const GuardContext&) {
  const auto& options = static_cast<const QualityOptions&>(common);
  std::map<size_t, double> limits;  // by index into text_rules()
  for (const std::string& name : options.rules)
    for (size_t i : rules_named(name)) {
      auto own = options.limits.find(text_rules()[i].name);
      limits[i] = own == options.limits.end() ? text_rules()[i].limit : own->second;
    }
  std::vector<Limit> looked_for;
  for (const auto& [i, limit] : limits)
    looked_for.push_back({i, limit, fmt::format(", at {} {:.4g}", text_rules()[i].at_most ? "most" : "least", limit)});
  return [looked_for](const GuardRow& row, std::vector<Finding>& findings) -> LookInOrder {
    thread_local std::string joined;
    const std::vector<double> values = text_measures(measured_text(row.chat(), joined));
    if (values.empty()) return {};
    for (const Limit& limit : looked_for) {
      const TextRule& rule = text_rules()[limit.rule];
      const double value = values[limit.rule];
      if (rule.at_most ? value <= limit.limit : value >= limit.limit) continue;
      findings.push_back({.rule = rule.name, .detail = fmt::format("{:.4g}", value) + limit.text});
    }
    return {};
  };
}

std::vector<GuardRule> all_rules() {
  std::vector<GuardRule> rules;
  for (const TextRule& rule : text_rules()) rules.push_back({rule.name, rule.text});
  return rules;
}

}  // namespace

extern const GuardKind guard_quality{
    .summary = "the rules of Gopher, C4 and FineWeb as measurements",
    .rules = all_rules(),
    .schema = []() -> const SchemaBase& { return schema_of(static_cast<QualityOptions*>(nullptr)); },
    .read = read_guard_options<QualityOptions>,
    .make = make,
};

}  // namespace retort
