// Secrets: keys, tokens and passwords, by our own rules and by those of a gitleaks file that the recipe names.
#include <algorithm>

#include "data/guard.h"
#include "data/secrets/secrets.h"

namespace retort {
namespace {

struct SecretsOptions : GuardOptions {
  std::filesystem::path rules;
  bool builtin = true;
  std::vector<std::string> skip;
};

const Schema<SecretsOptions>& schema_of(SecretsOptions*) {
  static const auto schema =
      guard_schema<SecretsOptions>("secrets", "Secrets: keys, tokens and passwords.", true)
          .field("rules", &SecretsOptions::rules, "a gitleaks configuration (TOML) whose rules are used too")
          .field("builtin", &SecretsOptions::builtin, "whether the rules that ship are used")
          .field("skip", &SecretsOptions::skip, "rules that are not used")
          .rule([](const SecretsOptions& options, const Yaml& node) {
            if (!options.builtin && options.rules.empty()) node.refuse("builtin: false needs a file in rules");
          });
  return schema;
}

std::vector<SecretRule> rules_of(const SecretsOptions& options, const GuardContext& context) {
  std::vector<SecretRule> rules;
  if (options.builtin) rules = builtin_secret_rules();
  if (!options.rules.empty())
    for (SecretRule& rule : read_gitleaks_rules(context.resolve(options.rules.string())))
      rules.push_back(std::move(rule));
  std::vector<std::string> names;
  for (const SecretRule& rule : rules) names.push_back(rule.name);
  auto check = [&](const std::string& name, const char* key) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      fail(Exit::usage, "data.guards.secrets.{}: unknown rule: {}", key, not_among(name, names));
  };
  for (const auto& [name, action] : options.actions) check(name, "actions");
  for (const std::string& name : options.skip) check(name, "skip");
  std::erase_if(rules, [&](const SecretRule& rule) {
    return std::find(options.skip.begin(), options.skip.end(), rule.name) != options.skip.end();
  });
  return rules;
}

Look make(const GuardOptions& options, const GuardContext& context) {
  auto finder = std::make_shared<SecretFinder>(rules_of(static_cast<const SecretsOptions&>(options), context));
  return [finder](const GuardRow& row, std::vector<Finding>& findings) -> LookInOrder {
    std::vector<FoundSpan> found;
    row.each_text([&](int32_t message, std::string_view text) {
      found.clear();
      finder->find(text, found);
      for (const FoundSpan& span : found)
        findings.push_back({finder->rules()[span.rule].name, message, span.begin, span.end, ""});
    });
    return {};
  };
}

std::vector<GuardRule> guard_rules() {
  static const std::vector<SecretRule> builtin = builtin_secret_rules();  // keeps the names
  std::vector<GuardRule> rules;
  for (const SecretRule& rule : builtin) rules.push_back({rule.name.c_str(), rule.text.c_str()});
  return rules;
}

}  // namespace

extern const GuardKind guard_secrets{
    .summary = "secrets: keys, tokens and passwords",
    .rules = guard_rules(),
    .by_default = true,
    .schema = []() -> const SchemaBase& { return schema_of(static_cast<SecretsOptions*>(nullptr)); },
    .read = read_guard_options<SecretsOptions>,
    .files = [](const GuardOptions& options) -> std::vector<std::string> {
      const auto& rules = static_cast<const SecretsOptions&>(options).rules;
      if (rules.empty()) return {};
      return {rules.string()};
    },
    .make = make,
};

}  // namespace retort
