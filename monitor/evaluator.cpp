// Kinds of evaluators and their options.
#include "monitor/evaluator.h"

#include <algorithm>

#include "core/error.h"

namespace retort {

#define KIND(name) extern const EvaluatorKind evaluator_##name;
#include "evaluator_kinds.inc"
#undef KIND

const std::map<std::string, const EvaluatorKind*>& evaluator_kinds() {
  static const std::map<std::string, const EvaluatorKind*> kinds = {
#define KIND(name) {#name, &evaluator_##name},
#include "evaluator_kinds.inc"
#undef KIND
  };
  return kinds;
}

static const Schema<EvaluatorOptions>& schema_of(EvaluatorOptions*) {
  static const auto schema = evaluator_schema<EvaluatorOptions>("");
  return schema;
}

const Schema<AnswerOptions>& schema_of(AnswerOptions*) {
  static const auto schema = answer_schema<AnswerOptions>("");
  return schema;
}

Needs needs_answer(const EvaluatorOptions& options) {
  return {.answer = true, .max_tokens = static_cast<const AnswerOptions&>(options).max_tokens};
}

static const SchemaBase& schema_of_kind(const EvaluatorKind& kind) {
  return kind.schema ? kind.schema() : schema_of(static_cast<EvaluatorOptions*>(nullptr));
}

void from_yaml(const Yaml& node, Evaluator& evaluator) {
  std::vector<std::string> names;
  for (const auto& [name, kind] : evaluator_kinds()) names.push_back(name);
  if (!node.is_map() || !node.has("kind"))
    node.refuse(fmt::format("the key \"kind\" is missing; allowed: {}", fmt::join(names, ", ")));
  const auto found = evaluator_kinds().find(node["kind"].as_string());
  if (found == evaluator_kinds().end()) node["kind"].refuse(not_among(node["kind"].as_string(), names));
  evaluator.kind = found->second;
  std::shared_ptr<EvaluatorOptions> options =
      evaluator.kind->read ? evaluator.kind->read(node)
                           : std::make_shared<EvaluatorOptions>(retort::from_yaml<EvaluatorOptions>(node));
  if (options->name.empty()) options->name = options->kind;
  evaluator.options = std::move(options);
}

Json json_schema_of(Evaluator*) {
  Json kinds = Json::array();
  for (const auto& [name, kind] : evaluator_kinds()) {
    Json schema = schema_of_kind(*kind).json_schema();
    schema["description"] = fmt::format("`kind: {}`: {}.", name, kind->summary);
    schema["properties"]["kind"] = {{"const", name}, {"enum", {name}}, {"description", "the evaluator"}};
    kinds.push_back(std::move(schema));
  }
  return {{"oneOf", std::move(kinds)}};
}

Json json_of(const Evaluator& evaluator) { return schema_of_kind(*evaluator.kind).to_json(evaluator.options.get()); }

Evaluator evaluator_from(const Json& keys) {
  Evaluator evaluator;
  from_yaml(Yaml::from_json(keys, "evaluate"), evaluator);
  return evaluator;
}

std::optional<EvaluationRow> evaluation_row(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                            const Chat& chat, const EncodeOptions& options, Ledger& ledger) {
  std::optional<Example> example = encode(tokenizer, chat_template, chat, options, ledger);
  if (!example) return std::nullopt;
  EvaluationRow row;
  row.place = chat.place;
  row.key = chat.key;
  row.example = std::move(*example);
  std::vector<int32_t> trained;
  for (size_t t = 1; t < row.example.ids.size(); ++t) {
    if (row.example.trained[t]) trained.push_back(row.example.ids[t]);
  }
  row.trained_bytes = static_cast<int64_t>(tokenizer.decode(trained).size());
  if (chat.messages.empty() || chat.messages.back().role != "assistant") return row;
  row.prompt = encode_prompt(tokenizer, chat_template, chat);
  std::span<const Message> messages(chat.messages);
  row.prompt_text = chat_template.render(messages.first(messages.size() - 1), true);
  row.expected = chat.messages.back().content;
  row.choices = chat.choices;
  for (const std::string& choice : chat.choices) {
    row.answers.push_back(encode_answer(tokenizer, chat_template, chat, choice));
  }
  return row;
}

void require_question(const EvaluationRow& row, const char* kind) {
  if (row.prompt.empty())
    fail(Exit::bad_input, "{}: {} needs a chat with a question and an answer, the row is plain text", row.place, kind);
}

size_t expected_choice(const EvaluationRow& row, const char* kind) {
  if (row.choices.size() < 2) {
    fail(Exit::bad_input, "{}: {} needs at least two choices, the row has {}; give the task `choices`", row.place, kind,
         row.choices.size());
  }
  const auto found = std::find(row.choices.begin(), row.choices.end(), row.expected);
  if (found == row.choices.end()) {
    fail(Exit::bad_input, "{}: the expected answer \"{}\" is none of the row's {} choices", row.place, row.expected,
         row.choices.size());
  }
  return static_cast<size_t>(found - row.choices.begin());
}

Json Evaluation::to_json() const {
  Json json{{"kind", kind}, {"data", data},      {"on", on}, {"value", value}, {"stderr", standard_error},
            {"n", n},       {"seconds", seconds}};
  if (name != kind) json["name"] = name;
  if (!unit.empty()) json["unit"] = unit;
  if (better != 0) json["better"] = better > 0 ? "higher" : "lower";
  for (const auto& [key, figure] : details.items()) json[key] = figure;
  return json;
}

}  // namespace retort
