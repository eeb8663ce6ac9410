// gitleaks' rule files.
#include <re2/re2.h>
#include <toml++/toml.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/files.h"
#include "data/secrets/secrets.h"

namespace retort {
namespace {

constexpr uint64_t kMaxBytes = 16 << 20;

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

/// A table whose keys are read one by one; those that are left are refused. gitleaks ignores the case of keys.
class Table {
 public:
  Table(const toml::table& table, std::string file, std::string what) : file_(std::move(file)), what_(std::move(what)) {
    for (const auto& [key, value] : table)
      if (!entries_.emplace(lower_case(key.str()), &value).second)
        fail(Exit::bad_input, "{}: {} is there twice", where(value), key.str());
    line_ = table.source().begin.line;
  }

  std::string where() const { return fmt::format("{}:{}: {}", file_, line_, what_); }
  std::string where(const toml::node& node) const {
    return fmt::format("{}:{}: {}", file_, node.source().begin.line, what_);
  }
  void rename(std::string what) { what_ = std::move(what); }

  const toml::node* take(const std::string& key) {
    auto found = entries_.find(lower_case(key));
    if (found == entries_.end()) return nullptr;
    const toml::node* node = found->second;
    entries_.erase(found);
    return node;
  }
  std::string text(const std::string& key) {
    const toml::node* node = take(key);
    if (!node) return "";
    if (!node->is_string()) wrong(key, *node, "a string");
    return **node->as_string();
  }
  double number(const std::string& key) {
    const toml::node* node = take(key);
    if (!node) return 0;
    auto value = node->value<double>();
    if (!node->is_number() || !value || !(*value >= 0 && *value <= 1000)) wrong(key, *node, "a number from 0 to 1000");
    return *value;
  }
  std::vector<std::string> texts(const std::string& key) {
    std::vector<std::string> list;
    const toml::node* node = take(key);
    if (!node) return list;
    if (!node->is_array()) wrong(key, *node, "a list of strings");
    for (const toml::node& item : *node->as_array()) {
      if (!item.is_string()) wrong(key, item, "a list of strings");
      list.push_back(**item.as_string());
    }
    return list;
  }
  /// One table or a list of them.
  std::vector<Table> tables(const std::string& key, const std::string& what) {
    std::vector<Table> list;
    const toml::node* node = take(key);
    if (!node) return list;
    if (node->is_table()) return {Table(*node->as_table(), file_, what)};
    if (!node->is_array()) wrong(key, *node, "tables");
    for (const toml::node& item : *node->as_array()) {
      if (!item.is_table()) wrong(key, item, "tables");
      list.emplace_back(*item.as_table(), file_, what);
    }
    return list;
  }
  void refuse_rest() const {
    if (entries_.empty()) return;
    const auto& [key, node] = *entries_.begin();
    fail(Exit::bad_input, "{}: \"{}\" is not supported here; take it out, or run gitleaks itself", where(*node), key);
  }

 private:
  [[noreturn]] void wrong(const std::string& key, const toml::node& node, const char* wanted) const {
    fail(Exit::bad_input, "{}: {} must be {}", where(node), key, wanted);
  }

  std::string file_, what_;
  uint32_t line_ = 0;
  std::map<std::string, const toml::node*> entries_;
};

struct Allowlist {
  SecretExemption exemption;
  std::vector<std::string> rules;  ///< that it is for; empty: all
  bool can_hold = true;
};

Allowlist read_allowlist(Table table) {
  Allowlist list;
  table.take("description");
  list.rules = table.texts("targetRules");
  std::string condition = lower_case(table.text("condition")), target = lower_case(table.text("regexTarget"));
  if (condition != "" && condition != "or" && condition != "||" && condition != "and" && condition != "&&")
    fail(Exit::bad_input, "{}: condition \"{}\"; allowed: OR, AND", table.where(), condition);
  list.exemption.all = condition == "and" || condition == "&&";
  if (target != "" && target != "secret" && target != "match" && target != "line")
    fail(Exit::bad_input, "{}: regexTarget \"{}\"; allowed: secret, match, line", table.where(), target);
  if (target == "match") list.exemption.target = SecretExemption::Target::match;
  if (target == "line") list.exemption.target = SecretExemption::Target::line;
  for (const std::string& pattern : table.texts("regexes"))
    list.exemption.expressions.push_back(compile_expression(pattern, table.where()));
  for (const std::string& word : table.texts("stopwords")) list.exemption.stop_words.push_back(lower_case(word));
  const bool of_files = !table.texts("paths").empty() | !table.texts("commits").empty();
  table.refuse_rest();
  const bool of_text = !list.exemption.expressions.empty() || !list.exemption.stop_words.empty();
  if (!of_files && !of_text)
    fail(Exit::bad_input, "{}: an allowlist needs regexes, stopwords, paths or commits", table.where());
  list.can_hold = of_text && !(of_files && list.exemption.all);
  return list;
}

}  // namespace

std::vector<SecretRule> read_gitleaks_rules(const std::filesystem::path& path) {
  const std::string text = read_text(path, kMaxBytes), file = path.string();
  toml::table root;
  try {
    root = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    fail(Exit::bad_input, "{}:{}: no TOML: {}", file, error.source().begin.line, error.description());
  }
  Table top(root, file, "top level");
  for (const char* key : {"title", "description", "minVersion"}) top.take(key);
  std::vector<Allowlist> global;
  for (const char* key : {"allowlist", "allowlists"})
    for (Table& table : top.tables(key, key)) global.push_back(read_allowlist(std::move(table)));

  std::vector<SecretRule> rules;
  for (Table& table : top.tables("rules", "rule")) {
    SecretRule rule;
    rule.name = table.text("id");
    if (rule.name.empty()) fail(Exit::bad_input, "{}: it has no id", table.where());
    table.rename("rule " + rule.name);
    if (std::any_of(rules.begin(), rules.end(), [&](const SecretRule& other) { return other.name == rule.name; }))
      fail(Exit::bad_input, "{}: the id is there twice", table.where());
    rule.text = table.text("description");
    const std::string pattern = table.text("regex"), file_pattern = table.text("path");
    rule.entropy = table.number("entropy");
    const double group = table.number("secretGroup");
    rule.group = static_cast<int>(group);
    for (const std::string& keyword : table.texts("keywords")) rule.keywords.push_back(lower_case(keyword));
    table.take("tags");
    for (const char* key : {"allowlist", "allowlists"})
      for (Table& inner : table.tables(key, "rule " + rule.name + ": " + key)) {
        Allowlist list = read_allowlist(std::move(inner));
        if (list.can_hold) rule.exemptions.push_back(std::move(list.exemption));
      }
    table.refuse_rest();
    for (const Allowlist& list : global)
      if (list.can_hold &&
          (list.rules.empty() || std::find(list.rules.begin(), list.rules.end(), rule.name) != list.rules.end()))
        rule.exemptions.push_back(list.exemption);
    if (pattern.empty()) {
      if (file_pattern.empty()) fail(Exit::bad_input, "{}: it has neither regex nor path", table.where());
      continue;
    }
    rule.expression = compile_expression(pattern, table.where());
    if (group != rule.group || rule.group > rule.expression->NumberOfCapturingGroups())
      fail(Exit::bad_input, "{}: secretGroup {}, the expression has {} groups", table.where(), group,
           rule.expression->NumberOfCapturingGroups());
    rules.push_back(std::move(rule));
  }
  top.refuse_rest();
  if (rules.empty()) fail(Exit::bad_input, "{}: no rule with a regex is in it", file);
  return rules;
}

}  // namespace retort
