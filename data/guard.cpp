#include "data/guard.h"

#include <algorithm>

namespace retort {

#define KIND(name) extern const GuardKind guard_##name;
#include "guard_kinds.inc"
#undef KIND

const std::map<std::string, const GuardKind*>& guard_kinds() {
  static const std::map<std::string, const GuardKind*> kinds = {
#define KIND(name) {#name, &guard_##name},
#include "guard_kinds.inc"
#undef KIND
  };
  return kinds;
}

static constexpr const char* action_names[] = {"report", "redact", "hash", "drop", "fail"};

const char* name_of(GuardAction action) { return action_names[static_cast<size_t>(action)]; }

GuardAction guard_action_from(const std::string& name) {
  for (size_t i = 0; i < std::size(action_names); ++i)
    if (name == action_names[i]) return static_cast<GuardAction>(i);
  fail(Exit::internal, "no guard does \"{}\"", name);
}

GuardAction GuardOptions::action_of(const std::string& rule) const {
  auto own = actions.find(rule);
  return guard_action_from(own == actions.end() ? action : own->second);
}

void GuardRow::each_text(const std::function<void(int32_t message, std::string_view text)>& look) const {
  for (size_t i = 0; i < chat_.messages.size(); ++i) look(static_cast<int32_t>(i), chat_.messages[i].content);
  if (chat_.messages.empty()) look(Finding::whole_text, chat_.text);
}

const Words& GuardRow::words() const {
  if (!words_) {
    words_.emplace();
    for (const Message& message : chat_.messages)
      if (message.role != "system") words_->add(message.content);
    if (chat_.messages.empty()) words_->add(chat_.text);
  }
  return *words_;
}

const MinHashSketch& GuardRow::sketch(const MinHashOptions& options,
                                      const std::shared_ptr<const Boilerplate>& boilerplate) const {
  const int64_t hashes = options.bands * options.rows;
  for (const Sketched& made : sketches_)
    if (made.words == options.words && made.hashes == hashes && made.boilerplate == boilerplate) return made.sketch;
  sketches_.push_front({options.words, hashes, boilerplate, minhash(words(), options, *boilerplate)});
  return sketches_.front().sketch;
}

GuardsOptions::GuardsOptions() {
  for (const auto& [name, kind] : guard_kinds())
    if (kind->by_default) kinds[name] = kind->read(Yaml::parse("{}", "guards." + name));
}

namespace {

constexpr const char* key_file_text =
    "a file with the project's key, for the HMACs of audit.jsonl and for action: hash; default: the environment "
    "variable RETORT_PROJECT_KEY";

void check_rules(const GuardKind& kind, const GuardOptions& options, const Yaml& node) {
  if (!kind.files(options).empty()) return;  // they may have rules of their own, which the kind knows when it is made
  std::vector<std::string> rules;
  for (const GuardRule& rule : kind.rules) rules.push_back(rule.name);
  for (const auto& [rule, action] : options.actions)
    if (!rules.empty() && std::find(rules.begin(), rules.end(), rule) == rules.end())
      node["actions"][rule].refuse("unknown rule: " + not_among(rule, rules));
}

}  // namespace

void from_yaml(const Yaml& node, GuardsOptions& guards) {
  guards = {};
  if (node.is_null()) return;
  std::vector<std::string> problems;
  for (const auto& [name, value] : node.entries()) {
    try {
      if (name == "key_file") {
        guards.key_file = value.as_string();
        continue;
      }
      if (name == "key")
        value.refuse(
            "a key does not belong into a recipe, which is copied into the run's folder: "
            "give key_file, or the environment variable RETORT_PROJECT_KEY");
      auto kind = guard_kinds().find(name);
      if (kind == guard_kinds().end()) {
        std::vector<std::string> allowed = {"key_file"};
        for (const auto& entry : guard_kinds()) allowed.push_back(entry.first);
        value.refuse("unknown guard: " + not_among(name, allowed));
      }
      if (value.is_scalar()) {
        if (value.as_string() != "false") value.refuse("found " + value.shown() + "; allowed: a map of options, false");
        guards.kinds.erase(name);
        continue;
      }
      auto options = kind->second->read(value);
      check_rules(*kind->second, *options, value);
      guards.kinds[name] = std::move(options);
    } catch (const Error& error) {
      problems.push_back(error.what());
    }
  }
  if (!problems.empty()) fail(Exit::usage, "{}", fmt::join(problems, "\n"));
}

Json json_schema_of(GuardsOptions*) {
  Json properties = {{"key_file", {{"type", "string"}, {"description", key_file_text}, {"default", ""}}}};
  for (const auto& [name, kind] : guard_kinds()) {
    Json options = kind->schema().json_schema();
    options.erase("title");
    const std::string text = fmt::format("{}; {}", kind->summary,
                                         kind->by_default ? "runs by default, false: it does not" : "runs when named");
    options["description"] = text;
    properties[name] = {{"description", text},
                        {"anyOf", {options, {{"enum", {false}}}}},
                        {"default", kind->by_default ? Json::object() : Json(false)}};
  }
  return {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
}

Json json_of(const GuardsOptions& guards) {
  Json json = {{"key_file", guards.key_file}};
  for (const auto& [name, kind] : guard_kinds()) {
    auto options = guards.kinds.find(name);
    json[name] = options == guards.kinds.end() ? Json(false) : kind->schema().to_json(options->second.get());
  }
  return json;
}

}  // namespace retort
