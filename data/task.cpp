#include "data/task.h"

#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <queue>
#include <set>
#include <unordered_map>

#include "core/hash.h"
#include "data/text_input.h"

namespace retort {
namespace {

constexpr size_t kMaxDistinctValues = 1 << 20;
constexpr uint64_t kSplitSeed = 0, kLimitSeed = 1;  // the two choices must not depend on each other

// A field as text; nothing when it is missing or null.
std::optional<std::string> text_of(const Row& row, const std::string& field) {
  auto it = row.fields.find(field);
  if (it == row.fields.end() || it->is_null()) return std::nullopt;
  return it->is_string() ? it->get<std::string>() : it->dump(-1, ' ', false, Json::error_handler_t::replace);
}

void extract(const ExtractOptions& options, Row& row) {
  auto text = text_of(row, options.from);
  if (!text) return;
  const re2::RE2& pattern = *options.pattern.compiled;
  std::vector<re2::StringPiece> groups(pattern.NumberOfCapturingGroups() + 1);
  if (!pattern.Match(*text, 0, text->size(), re2::RE2::UNANCHORED, groups.data(), groups.size())) return;
  for (const auto& [name, index] : pattern.NamedCapturingGroups())
    if (groups[index].data()) row.fields[name] = groups[index].as_string();
  if (!options.remove) return;
  re2::RE2::GlobalReplace(&*text, pattern, "");
  row.fields[options.from] = *text;
}

// `top`: the values that a top-N condition allows, once they are counted.
bool passes(const FilterOptions& filter, const std::set<std::string>& top, const Row& row) {
  auto text = text_of(row, filter.field);
  if (filter.present && !*filter.present) return !text;
  if (!text) return false;
  if (filter.matches && !re2::RE2::PartialMatch(*text, *filter.matches->compiled)) return false;
  if (filter.not_matches && re2::RE2::PartialMatch(*text, *filter.not_matches->compiled)) return false;
  if (filter.one_of && std::find(filter.one_of->begin(), filter.one_of->end(), *text) == filter.one_of->end())
    return false;
  if (filter.top && !top.contains(*text)) return false;
  if (filter.min_chars || filter.max_chars) {
    int64_t length = utf8_length(*text);
    if (filter.min_chars && length < *filter.min_chars) return false;
    if (filter.max_chars && length > *filter.max_chars) return false;
  }
  return true;
}

// The most frequent values of a field, most frequent first; equal counts in byte order.
std::vector<std::string> most_frequent(Stream<Row> rows, const std::string& field, int64_t top,
                                       const std::string& where) {
  std::unordered_map<std::string, int64_t> counts;
  for (Row row; rows(row);) {
    auto text = text_of(row, field);
    if (!text) continue;
    ++counts[*text];
    if (counts.size() > kMaxDistinctValues)
      fail(Exit::bad_input, "{}: {}: field \"{}\" has more than {} different values, too many to count", where,
           row.place, field, kMaxDistinctValues);
  }
  std::vector<std::pair<std::string, int64_t>> ranked(counts.begin(), counts.end());
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  if (std::ssize(ranked) > top) ranked.resize(top);
  std::vector<std::string> values;
  for (auto& [value, count] : ranked) values.push_back(std::move(value));
  return values;
}

// What apply_task's stream holds between two rows.
struct Run {
  TaskOptions task;
  std::function<Stream<Row>()> source;
  std::string split, where;
  std::vector<std::set<std::string>> tops;  // by filter
  std::vector<std::string> choices;
  std::optional<uint64_t> threshold;  // limit: rows whose hash lies below are kept,
  int64_t ties = 0;                   // and this many of those that are equal to it
  std::set<std::string> unseen;       // variables of the templates that no row has had yet
  std::set<std::string> known;        // fields of the first row, for messages
  int64_t read = 0, passed = 0, given = 0;
};

// Rows after extract, max_chars and the first `filters` filters.
Stream<Row> prepared(const std::shared_ptr<Run>& run, size_t filters) {
  return [run, filters, rows = run->source()](Row& row) {
    while (rows(row)) {
      ++run->read;
      for (const ExtractOptions& options : run->task.extract) extract(options, row);
      for (const auto& [field, characters] : run->task.max_chars)
        if (auto text = text_of(row, field)) row.fields[field] = cut_text(*text, characters);
      size_t i = 0;
      while (i < filters && passes(run->task.filters[i], run->tops[i], row)) ++i;
      if (i == filters) return true;
    }
    return false;
  };
}

std::string render(const FieldTemplate& field_template, const Json& fields, const Row& row) {
  try {
    return std::string(trim(field_template.compiled->render(fields)));
  } catch (const Error& error) {
    fail(error.exit(), "{}: {}", row.place, error.what());
  }
}

std::string key_of(const TaskOptions& task, const Row& row) {
  if (task.key) return render(*task.key, row.fields, row);
  return row.fields.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool in_split(const Run& run, const std::string& key) {
  return run.split.empty() || split_of(run.task.split, key) == run.split;
}

// Finds the hash below which exactly `limit` rows lie, holding `limit` hashes.
void choose(const std::shared_ptr<Run>& run, int64_t limit) {
  std::priority_queue<uint64_t> smallest;
  Stream<Row> rows = prepared(run, run->task.filters.size());
  for (Row row; rows(row);) {
    std::string key = key_of(run->task, row);
    if (!in_split(*run, key)) continue;
    smallest.push(xxh3(key, kLimitSeed));
    if (std::ssize(smallest) > limit) smallest.pop();
  }
  if (std::ssize(smallest) < limit) return;  // all of them
  run->threshold = smallest.top();
  for (; !smallest.empty() && smallest.top() == *run->threshold; smallest.pop()) ++run->ties;
}

std::string required_text(const Row& row, const Json& object, const char* field) {
  auto it = object.find(field);
  if (it == object.end() || !it->is_string())
    fail(Exit::bad_input, "{}: \"{}\" is {}, a text is needed", row.place, field,
         it == object.end() ? "missing" : it->type_name());
  return it->get<std::string>();
}

Message to_message(const Row& row, const Json& object) {
  static const std::map<std::string, std::string> roles = {{"system", "system"},       {"user", "user"},
                                                           {"assistant", "assistant"}, {"tool", "tool"},
                                                           {"human", "user"},          {"gpt", "assistant"}};
  if (!object.is_object())
    fail(Exit::bad_input, "{}: a message is {}, an object with \"role\" and \"content\" is needed", row.place,
         object.type_name());
  std::string role = required_text(row, object, "role");
  auto known = roles.find(role);
  if (known == roles.end())
    fail(Exit::bad_input, "{}: role \"{}\" is unknown; allowed: system, user, assistant, tool", row.place, role);
  return {known->second, required_text(row, object, "content")};
}

// Without templates the row itself holds the chat.
void chat_of_fields(const Row& row, Chat& chat) {
  const Json& fields = row.fields;
  bool messages = fields.contains("messages"), pair = fields.contains("prompt") || fields.contains("completion");
  if (messages + pair + fields.contains("text") != 1) {
    std::string found;
    for (const auto& [name, value] : fields.items()) found += (found.empty() ? "" : ", ") + name;
    fail(Exit::bad_input,
         "{}: the row has the fields {}; exactly one of `messages`, `prompt` with `completion`, or `text` makes a chat "
         "(rename them with `fields:`, or write a `task:`)",
         row.place, found);
  }
  if (messages) {
    const Json& list = fields["messages"];
    if (!list.is_array() || list.empty())
      fail(Exit::bad_input, "{}: \"messages\" is {}, a list of messages is needed", row.place,
           list.is_array() ? "empty" : list.type_name());
    for (const Json& message : list) chat.messages.push_back(to_message(row, message));
  } else if (pair) {
    if (fields.contains("system")) chat.messages.push_back({"system", required_text(row, fields, "system")});
    chat.messages.push_back({"user", required_text(row, fields, "prompt")});
    chat.messages.push_back({"assistant", required_text(row, fields, "completion")});
  } else {
    chat.text = required_text(row, fields, "text");
  }
}

void chat_of_templates(const Run& run, const Row& row, Chat& chat) {
  Json fields = row.fields;
  if (!run.choices.empty()) fields["choices"] = run.choices;
  auto filled = [&](const FieldTemplate& field_template, const char* name) {
    std::string text = render(field_template, fields, row);
    if (text.empty())
      fail(Exit::bad_input, "{}: the task's {} is empty for this row; filter such rows out", row.place, name);
    return text;
  };
  if (run.task.text) {
    chat.text = filled(*run.task.text, "text");
    return;
  }
  if (run.task.system) chat.messages.push_back({"system", filled(*run.task.system, "system")});
  chat.messages.push_back({"user", filled(*run.task.prompt, "prompt")});
  chat.messages.push_back({"assistant", filled(*run.task.completion, "completion")});
}

Chat to_chat(const Run& run, const Row& row, std::string key) {
  Chat chat{.place = row.place, .key = std::move(key), .messages = {}, .text = {}, .choices = run.choices};
  if (run.task.prompt || run.task.text) {
    chat_of_templates(run, row, chat);
  } else {
    chat_of_fields(row, chat);
  }
  if (!run.choices.empty() && !chat.messages.empty()) {
    const std::string& answer = chat.messages.back().content;
    if (std::find(run.choices.begin(), run.choices.end(), answer) == run.choices.end())
      fail(Exit::bad_input, "{}: the answer \"{}\" is not among the task's choices ({}); filter such rows out",
           row.place, answer, fmt::join(run.choices, ", "));
  }
  return chat;
}

// A template's variable that no row had is a misspelt field; an empty stream is a filter that keeps nothing.
void check_end(const Run& run) {
  if (run.given == 0)
    fail(Exit::bad_input, "{}: no row is left: {} rows read, {} pass the filters{}", run.where, run.read, run.passed,
         run.split.empty() ? "" : fmt::format(", none of them in split \"{}\"", run.split));
  if (run.unseen.empty()) return;
  const std::string& name = *run.unseen.begin();
  std::vector<std::string> known(run.known.begin(), run.known.end());
  std::string near = did_you_mean(name, known);
  fail(Exit::usage, "{}: a template of the task uses {{{{ {} }}}}, which none of the {} rows has; fields: {}{}",
       run.where, name, run.given, fmt::join(known, ", "), near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

}  // namespace

std::string split_of(const std::map<std::string, double>& fractions, const std::string& key) {
  // 53 bits of the hash are a uniform double in [0, 1).
  double position = std::ldexp(static_cast<double>(xxh3(key, kSplitSeed) >> 11), -53);
  for (const auto& [name, fraction] : fractions) {
    if (position < fraction) return name;
    position -= fraction;
  }
  return "train";
}

Stream<Chat> apply_task(const TaskOptions& task, std::function<Stream<Row>()> rows, const std::string& split,
                        std::optional<int64_t> limit, const std::string& where) {
  if (!split.empty() && split != "train" && !task.split.contains(split)) {
    std::string names = "train";
    for (const auto& [name, fraction] : task.split) names += ", " + name;
    fail(Exit::usage, "{}: the task has no split \"{}\"; it has: {}", where, split, names);
  }
  auto run = std::make_shared<Run>();
  run->task = task;
  run->source = std::move(rows);
  run->split = split;
  run->where = where;
  run->tops.resize(task.filters.size());
  for (size_t i = 0; i < task.filters.size(); ++i) {
    const FilterOptions& filter = task.filters[i];
    if (!filter.top) continue;
    // The filter's other conditions hold before its values are counted.
    auto before = prepared(run, i);
    FilterOptions others = filter;
    others.top.reset();
    auto counted = [before, others](Row& row) {
      while (before(row))
        if (passes(others, {}, row)) return true;
      return false;
    };
    for (std::string& value : most_frequent(counted, filter.field, *filter.top, where))
      run->tops[i].insert(std::move(value));
  }
  if (task.choices) {
    run->choices = task.choices->values;
    if (task.choices->top > 0)
      run->choices = most_frequent(prepared(run, task.filters.size()), task.choices->of, task.choices->top, where);
  }
  for (const auto* field_template : {&task.key, &task.system, &task.prompt, &task.completion, &task.text})
    if (*field_template)
      run->unseen.insert((*field_template)->compiled->variables().begin(),
                         (*field_template)->compiled->variables().end());
  run->unseen.erase("choices");
  if (limit) choose(run, *limit);
  run->read = 0;

  return [run, rows = prepared(run, task.filters.size())](Chat& chat) {
    for (Row row; rows(row);) {
      ++run->passed;
      std::string key = key_of(run->task, row);
      if (!in_split(*run, key)) continue;
      if (run->threshold) {
        uint64_t hash = xxh3(key, kLimitSeed);
        if (hash > *run->threshold || (hash == *run->threshold && run->ties-- <= 0)) continue;
      }
      if (run->known.empty() || !run->unseen.empty())
        for (const auto& [name, value] : row.fields.items()) run->known.insert(name), run->unseen.erase(name);
      ++run->given;
      chat = to_chat(*run, row, std::move(key));
      return true;
    }
    check_end(*run);
    return false;
  };
}

}  // namespace retort
