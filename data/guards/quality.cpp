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

/// What the model learns to write: the assistant's messages, or the plain text.
std::string measured_text(const Chat& chat) {
  std::string text = chat.text;
  for (const Message& message : chat.messages) {
    if (message.role != "assistant") continue;
    if (!text.empty()) text += "\n\n";
    text += message.content;
  }
  return text;
}

Look make(const GuardOptions& common, const GuardContext&) {
  const auto& options = static_cast<const QualityOptions&>(common);
  std::map<size_t, double> limits;  // by index into text_rules()
  for (const std::string& name : options.rules)
    for (size_t i : rules_named(name)) {
      auto own = options.limits.find(text_rules()[i].name);
      limits[i] = own == options.limits.end() ? text_rules()[i].limit : own->second;
    }
  return [limits](const GuardRow& row, std::vector<Finding>& findings) -> LookInOrder {
    const std::vector<double> values = text_measures(measured_text(row.chat()));
    if (values.empty()) return {};
    for (const auto& [i, limit] : limits) {
      const TextRule& rule = text_rules()[i];
      if (rule.at_most ? values[i] <= limit : values[i] >= limit) continue;
      findings.push_back(
          {.rule = rule.name,
           .detail = fmt::format("{:.4g}, at {} {:.4g}", values[i], rule.at_most ? "most" : "least", limit)});
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
