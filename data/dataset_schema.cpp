// How data sets and tasks are written in a recipe.
#include <re2/re2.h>

#include <algorithm>

#include "data/dataset.h"

namespace retort {

Pattern::Pattern(const std::string& text, const std::string& where) : text(text) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  auto regex = std::make_shared<re2::RE2>(text, options);
  if (!regex->ok())
    fail(Exit::usage, "{}: not a regular expression in RE2's syntax: {} (found {})", where, regex->error(), text);
  compiled = std::move(regex);
}

void from_yaml(const Yaml& yaml, Pattern& pattern) { pattern = Pattern(yaml.as_string(), yaml.where()); }
Json json_schema_of(Pattern*) { return {{"type", "string"}, {"format", "regex"}}; }
Json json_of(const Pattern& pattern) { return pattern.text; }

void from_yaml(const Yaml& yaml, FieldTemplate& field_template) {
  field_template = FieldTemplate(yaml.as_string(), yaml.where());
}
Json json_schema_of(FieldTemplate*) { return {{"type", "string"}}; }
Json json_of(const FieldTemplate& field_template) { return field_template.source; }

namespace {

struct TopChoices {
  int64_t top = 0;
  std::string of;
};
const Schema<TopChoices>& schema_of(TopChoices*) {
  static const auto schema = Schema<TopChoices>("choices", "The most frequent values of a field.")
                                 .field("top", &TopChoices::top, "how many", {.minimum = 2, .required = true})
                                 .field("of", &TopChoices::of, "the field", {.required = true});
  return schema;
}

}  // namespace

void from_yaml(const Yaml& yaml, ChoicesOptions& choices) {
  choices = {};
  if (yaml.is_list()) {
    choices.values = from_yaml<std::vector<std::string>>(yaml);
    if (choices.values.size() < 2) yaml.refuse("at least two choices are needed");
  } else {
    TopChoices counted = from_yaml<TopChoices>(yaml);
    choices.top = counted.top;
    choices.of = counted.of;
  }
}
Json json_schema_of(ChoicesOptions*) {
  return {{"anyOf",
           {{{"type", "array"}, {"items", {{"type", "string"}}}, {"minItems", 2}},
            schema_of(static_cast<TopChoices*>(nullptr)).json_schema()}}};
}
Json json_of(const ChoicesOptions& choices) {
  if (choices.top > 0) return {{"top", choices.top}, {"of", choices.of}};
  return choices.values;
}

const Schema<ExtractOptions>& schema_of(ExtractOptions*) {
  static const auto schema =
      Schema<ExtractOptions>("extract", "New fields by a regular expression.")
          .field("from", &ExtractOptions::from, "the field to look in", {.required = true})
          .field("pattern", &ExtractOptions::pattern,
                 "RE2 syntax; each named group (?P<name>…) of the first match becomes the field `name`",
                 {.required = true})
          .field("remove", &ExtractOptions::remove, "cut every match out of `from`")
          .rule([](const ExtractOptions& options, const Yaml& node) {
            if (!options.remove && options.pattern.compiled && options.pattern.compiled->NamedCapturingGroups().empty())
              node["pattern"].refuse("has no named group (?P<name>…), so nothing would be extracted");
          });
  return schema;
}

const Schema<FilterOptions>& schema_of(FilterOptions*) {
  static const auto schema =
      Schema<FilterOptions>("filters", "Keeps the rows whose field meets every condition given.")
          .field("field", &FilterOptions::field, "the field", {.required = true})
          .field("present", &FilterOptions::present, "whether the row has the field, not null")
          .field("matches", &FilterOptions::matches, "RE2 syntax; found anywhere in the text")
          .field("not_matches", &FilterOptions::not_matches, "RE2 syntax; found nowhere in the text")
          .field("one_of", &FilterOptions::one_of, "the allowed values")
          .field("top", &FilterOptions::top,
                 "among the N most frequent values, of the rows that the filters above keep", {.minimum = 1})
          .field("min_chars", &FilterOptions::min_chars, "shortest length, in characters", {.minimum = 0})
          .field("max_chars", &FilterOptions::max_chars, "greatest length, in characters", {.minimum = 0})
          .rule([](const FilterOptions& filter, const Yaml& node) {
            bool values = filter.matches || filter.not_matches || filter.one_of || filter.top || filter.min_chars ||
                          filter.max_chars;
            if (!filter.present && !values)
              node.refuse("the filter has no condition (present, matches, one_of, top, …)");
            if (filter.present && !*filter.present && values)
              node.refuse("`present: false` leaves no value that another condition could look at");
          });
  return schema;
}

const Schema<TaskOptions>& schema_of(TaskOptions*) {
  static const auto schema =
      Schema<TaskOptions>("task",
                          "Turns rows into chats, in this order: extract, max_chars, filters, split, templates.")
          .field("extract", &TaskOptions::extract, "new fields by regular expressions")
          .field("max_chars", &TaskOptions::max_chars, "field: characters kept, cut at white space", {.minimum = 1})
          .field("filters", &TaskOptions::filters, "conditions that a row must meet")
          .field("key", &TaskOptions::key, "Jinja; what names a row and decides its split (default: all its fields)")
          .field("split", &TaskOptions::split, "name: fraction of the keys; `train` is the rest",
                 {.minimum = 0, .maximum = 1, .minimum_open = true, .maximum_open = true})
          .field("system", &TaskOptions::system, "Jinja; the system message")
          .field("prompt", &TaskOptions::prompt, "Jinja; the user's message")
          .field("completion", &TaskOptions::completion, "Jinja; the assistant's answer")
          .field("text", &TaskOptions::text, "Jinja; plain text instead of a chat")
          .field("choices", &TaskOptions::choices, "the allowed answers: a list, or {top: N, of: field}")
          .rule([](const TaskOptions& task, const Yaml& node) {
            if (task.prompt.has_value() != task.completion.has_value())
              node.refuse("`prompt` and `completion` belong together; one is missing");
            if (task.text && (task.prompt || task.system || task.choices))
              node.refuse(
                  "`text` makes plain text; system, prompt, completion and choices make a chat: one or the other");
            if (task.system && !task.prompt) node.refuse("`system` needs `prompt` and `completion`");
            if (task.split.contains("train"))
              node["split"].refuse("`train` is the rest; give the other fractions only");
            double sum = 0;
            for (const auto& [name, fraction] : task.split) sum += fraction;
            if (sum >= 1) node["split"].refuse("the fractions leave nothing for `train`");
          });
  return schema;
}

const Schema<DatasetOptions>& schema_of(DatasetOptions*) {
  std::vector<std::string> kinds;
  for (const auto& [name, kind] : dataset_kinds()) kinds.push_back(name);
  static const auto schema =
      Schema<DatasetOptions>("dataset", "Where rows come from and what becomes of them (docs/data.md).")
          .field("kind", &DatasetOptions::kind, "the file's format", {.one_of = kinds, .required = true})
          .field("path", &DatasetOptions::path, "a source's name, a URI, or a file or folder", {.required = true})
          .field("options", &DatasetOptions::options, "the kind's own options")
          .field("fields", &DatasetOptions::fields, "our field name: the name in the file")
          .field("task", &DatasetOptions::task, "how a row becomes a chat")
          .field("split", &DatasetOptions::split,
                 "which of the task's splits: train or one that it names; default: all rows")
          .field("limit", &DatasetOptions::limit, "how many rows, chosen by the hash of their key", {.minimum = 1})
          .renamed("type", "kind")
          .renamed("format", "kind")
          .renamed("columns", "fields")
          .renamed("max_samples", "limit")
          .renamed("prompt_template", "prompts are written in `task: {prompt: …}`")
          .rule([](const DatasetOptions& options, const Yaml& node) {
            auto kind = dataset_kinds().find(options.kind);
            if (kind == dataset_kinds().end()) return;  // already refused
            for (const auto& [name, value] : options.options) {
              const DatasetKindOption* known = nullptr;
              std::vector<std::string> names;
              for (const DatasetKindOption& option : kind->second->options) {
                names.push_back(option.name);
                if (option.name == name) known = &option;
              }
              Yaml place = node["options"][name];
              if (!known && names.empty()) place.refuse(fmt::format("kind `{}` has no options", options.kind));
              if (!known) place.refuse(not_among(name, names));
              std::vector<std::string> allowed(known->one_of.begin(), known->one_of.end());
              if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end())
                place.refuse(not_among(value, allowed));
            }
            bool has_split = options.task && options.task->split.contains(options.split);
            if (!options.split.empty() && options.split != "train" && !has_split)
              node["split"].refuse(fmt::format("the task has no split `{}`; name it in task.split", options.split));
          });
  return schema;
}

}  // namespace retort
