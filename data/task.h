// Tasks: rows with fields become chats with a question and an answer.
//
// The order is fixed: extract, max_chars, filters, split, limit, templates. Top-N filters and choices count in passes
// of their own over the rows, so nothing is held but the counts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/jinja.h"
#include "core/schema.h"
#include "data/example.h"

namespace re2 {
class RE2;
}

namespace retort {

/// A regular expression in RE2's syntax (linear time on any text), compiled when the recipe is read.
struct Pattern {
  Pattern() = default;
  /// Error(usage) naming `where` when RE2 refuses it.
  Pattern(const std::string& text, const std::string& where);
  std::string text;
  std::shared_ptr<const re2::RE2> compiled;
};
void from_yaml(const Yaml& yaml, Pattern& pattern);
Json json_schema_of(Pattern*);
Json json_of(const Pattern& pattern);

/// A Jinja template over a row's fields, parsed when the recipe is read.
struct FieldTemplate {
  FieldTemplate() = default;
  FieldTemplate(const std::string& source, const std::string& where)
      : source(source), compiled(JinjaTemplate(source, where)) {}
  std::string source;
  std::optional<JinjaTemplate> compiled;
};
void from_yaml(const Yaml& yaml, FieldTemplate& field_template);
Json json_schema_of(FieldTemplate*);
Json json_of(const FieldTemplate& field_template);

/// New fields by a regular expression: each named group (?P<name>...) of its first match becomes the field `name`.
struct ExtractOptions {
  std::string from;
  Pattern pattern;
  bool remove = false;  ///< cut every match out of `from`, so that the answer is not in the question
};
const Schema<ExtractOptions>& schema_of(ExtractOptions*);

/// Keeps the rows whose `field` meets every condition given.
struct FilterOptions {
  std::string field;
  std::optional<bool> present;
  std::optional<Pattern> matches, not_matches;
  std::optional<std::vector<std::string>> one_of;
  std::optional<int64_t> top;  ///< among the N most frequent values, of the rows that the filters above let through
  std::optional<int64_t> min_chars, max_chars;
};
const Schema<FilterOptions>& schema_of(FilterOptions*);

/// The allowed answers: a list, or the most frequent values of a field.
struct ChoicesOptions {
  std::vector<std::string> values;
  std::string of;
  int64_t top = 0;  ///< 0: `values`
};
void from_yaml(const Yaml& yaml, ChoicesOptions& choices);
Json json_schema_of(ChoicesOptions*);
Json json_of(const ChoicesOptions& choices);

struct TaskOptions {
  std::vector<ExtractOptions> extract;
  std::map<std::string, int64_t> max_chars;  ///< field -> characters kept
  std::vector<FilterOptions> filters;
  std::optional<FieldTemplate> key;     ///< what split and limit hash; default: every field
  std::map<std::string, double> split;  ///< name -> fraction of the keys; `train` is the rest
  std::optional<FieldTemplate> system, prompt, completion, text;
  std::optional<ChoicesOptions> choices;
};
const Schema<TaskOptions>& schema_of(TaskOptions*);

/// Chats of `rows` (which may be opened several times). `split` empty: all rows; `limit`: that many rows, chosen by
/// hash. `where` names the data set in messages. Errors: Error(usage) for a split that the task does not have,
/// Error(bad_input) naming the row for a completion outside the choices, an empty prompt or completion, or too many
/// distinct values to count.
Stream<Chat> apply_task(const TaskOptions& task, std::function<Stream<Row>()> rows, const std::string& split,
                        std::optional<int64_t> limit, const std::string& where);

/// The split that a key belongs to: by XXH3 of the key, so it never changes when rows come or go.
std::string split_of(const std::map<std::string, double>& fractions, const std::string& key);

}  // namespace retort
