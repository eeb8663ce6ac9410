// Personal data: numbers and addresses that name a person, found by their form and check digits. Names and places are
// not looked for.
#include <algorithm>

#include "data/guard.h"
#include "data/identifiers/finder.h"
#include "data/identifiers/phone.h"

namespace retort {
namespace {

struct PiiOptions : GuardOptions {
  std::vector<std::string> only, skip;
  std::vector<std::string> regions = {"US", "GB"};
  bool global_ip_only = true;
};

std::vector<std::string> rule_names() {
  std::vector<std::string> names;
  for (const IdentifierRule& rule : identifier_rules()) names.push_back(rule.name);
  return names;
}

void check_regions(const PiiOptions& options, const Yaml& node) {
  if (!node.is_map() || !node.has("regions")) return;
  std::vector<std::string> known = phone_regions();
  for (const std::string& region : options.regions)
    if (!std::binary_search(known.begin(), known.end(), region))
      node["regions"].refuse(
          fmt::format("\"{}\" is no region of ISO 3166 with telephone numbers{}; two capital letters "
                      "are expected, as in [US, GB, DE]",
                      region, region == "UK" ? " (the United Kingdom is GB)" : ""));
}

const Schema<PiiOptions>& schema_of(PiiOptions*) {
  static const auto schema =
      guard_schema<PiiOptions>("pii", "Personal data: cards, accounts, national ids, telephones, addresses.", true)
          .field("only", &PiiOptions::only, "rules that are looked for; empty: all", {.one_of = rule_names()})
          .field("skip", &PiiOptions::skip, "rules that are not looked for", {.one_of = rule_names()})
          .field("regions", &PiiOptions::regions,
                 "countries (ISO 3166) whose telephone numbers are known in their national form; numbers with + are "
                 "always known. Each takes time")
          .field("global_ip_only", &PiiOptions::global_ip_only,
                 "IP addresses only when reachable worldwide; false: those of private networks and documentation too")
          .rule(check_regions);
  return schema;
}

Look make(const GuardOptions& base, const GuardContext&) {
  const auto& options = static_cast<const PiiOptions&>(base);
  IdentifierOptions looked_for{
      .rules = options.only, .regions = options.regions, .global_ip_only = options.global_ip_only};
  if (looked_for.rules.empty()) looked_for.rules = rule_names();
  std::erase_if(looked_for.rules, [&](const std::string& rule) {
    return std::find(options.skip.begin(), options.skip.end(), rule) != options.skip.end();
  });
  if (looked_for.rules.empty()) fail(Exit::usage, "data.guards.pii: skip leaves no rule of only");
  auto finder = std::make_shared<IdentifierFinder>(looked_for);
  return [finder](const GuardRow& row, std::vector<Finding>& findings) -> LookInOrder {
    std::vector<FoundSpan> found;
    row.each_text([&](int32_t message, std::string_view text) {
      found.clear();
      finder->find(text, found);
      for (const FoundSpan& span : found)
        findings.push_back({identifier_rules()[span.rule].name, message, span.begin, span.end, ""});
    });
    return {};
  };
}

std::vector<GuardRule> guard_rules() {
  std::vector<GuardRule> rules;
  for (const IdentifierRule& rule : identifier_rules()) rules.push_back({rule.name, rule.text});
  return rules;
}

}  // namespace

extern const GuardKind guard_pii{
    .summary = "personal data: payment cards, bank accounts, national ids, telephone numbers, e-mail and IP addresses",
    .rules = guard_rules(),
    .schema = []() -> const SchemaBase& { return schema_of(static_cast<PiiOptions*>(nullptr)); },
    .read = read_guard_options<PiiOptions>,
    .make = make,
};

}  // namespace retort
