#include "monitor/traffic.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <memory>

#include "core/json.h"
#include "data/text_input.h"

namespace retort {
namespace {

/// The first of `keys` that the object has with a value.
const Json* find(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto it = object.find(key);
    if (it != object.end() && !it->is_null()) return &*it;
  }
  return nullptr;
}

const std::string& text(const Json& value, const std::string& where) {
  if (!value.is_string()) fail(Exit::bad_input, "{} is {}, a text is needed", where, value.type_name());
  return value.get_ref<const std::string&>();
}

const Json& object(const Json& value, const std::string& where) {
  if (!value.is_object()) fail(Exit::bad_input, "{} is {}, an object is needed", where, value.type_name());
  return value;
}

/// A message's content: a text, null, or a list of parts, of which the texts count.
std::string content(const Json& message, const std::string& where) {
  const Json* value = find(object(message, where), {"content"});
  if (!value) return "";
  if (!value->is_array()) return text(*value, where + ".content");
  std::string joined;
  for (const Json& part : *value) {
    if (const Json* words = find(object(part, where + ".content"), {"text"})) joined += text(*words, where + ".text");
  }
  return joined;
}

void add(std::string& all, const std::string& more) {
  if (!all.empty() && !more.empty()) all += "\n\n";
  all += more;
}

/// From an object with `text`, `prompt` or `messages`; false without any.
bool read_asked(const Json& asked, const std::string& where, TrafficRow& row) {
  if (const Json* messages = find(asked, {"messages"})) {
    if (!messages->is_array())
      fail(Exit::bad_input, "{}messages is {}, a list is needed", where, messages->type_name());
    for (size_t i = 0; i < messages->size(); ++i) {
      const std::string at = fmt::format("{}messages[{}]", where, i);
      const Json& message = object((*messages)[i], at);
      const Json* role = find(message, {"role"});
      if (!role) fail(Exit::bad_input, "{}.role is missing", at);
      const bool last = i + 1 == messages->size();
      if (last && text(*role, at + ".role") == "assistant")
        row.answer = content(message, at);
      else
        add(row.text, content(message, at));
    }
    return true;
  }
  if (const Json* prompt = find(asked, {"prompt", "text"})) {
    if (const Json* system = find(asked, {"system"})) add(row.text, text(*system, where + "system"));
    add(row.text, text(*prompt, where + "prompt"));
    return true;
  }
  return false;
}

void read_choices(const Json& completion, const std::string& where, TrafficRow& row) {
  const Json* choices = find(completion, {"choices"});
  if (!choices) return;
  if (!choices->is_array() || choices->empty())
    fail(Exit::bad_input, "{}choices must be a list with an answer in it", where);
  const std::string at = where + "choices[0]";
  const Json& choice = object(choices->front(), at);
  if (const Json* message = find(choice, {"message"}))
    row.answer = content(*message, at + ".message");
  else if (const Json* words = find(choice, {"text"}))
    row.answer = text(*words, at + ".text");
}

std::optional<Day> read_time(const Json& value, const std::string& where) {
  if (value.is_string()) {
    if (const auto day = day_of(value.get_ref<const std::string&>())) return day;
  } else if (json_holds<int64_t>(value) || value.is_number_float()) {
    const auto seconds = value.get<double>();
    // Four-digit years. Milliseconds would lie far beyond them.
    if (seconds >= 0 && seconds < 253402300800.0)
      return std::chrono::floor<std::chrono::days>(
          std::chrono::sys_seconds(std::chrono::seconds(static_cast<int64_t>(seconds))));
  }
  fail(Exit::bad_input, "{} is {}; a date that begins YYYY-MM-DD or seconds since 1970 is needed", where,
       value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
}

TrafficRow read_row(const Json& line, const std::string& place) {
  const std::string where = place + ": ";
  TrafficRow row;
  row.place = place;
  object(line, place);
  bool asked = read_asked(line, where, row);
  if (const Json* request = find(line, {"request"}); request && !asked) {
    const Json* body = find(object(*request, where + "request"), {"body"});
    asked = read_asked(body ? object(*body, where + "request.body") : *request, where + "request.", row);
  }
  if (const Json* answer = find(line, {"answer", "completion"})) row.answer = text(*answer, where + "answer");
  read_choices(line, where, row);
  const Json* created = find(line, {"time", "timestamp", "created"});
  if (const Json* response = find(line, {"response"})) {
    if (response->is_string()) {
      row.answer = response->get<std::string>();
    } else {
      const Json* inner = find(object(*response, where + "response"), {"body"});
      const Json& body = inner ? object(*inner, where + "response.body") : *response;
      read_choices(body, where + "response.", row);
      if (!created) created = find(body, {"created"});
    }
  }
  if (const Json* label = find(line, {"label", "expected"})) row.label = text(*label, where + "label");
  if (created) row.day = read_time(*created, where + "time");
  if (trim(row.text).empty())
    fail(Exit::bad_input, "{}{}", where,
         asked ? "what was asked is empty" : "nothing was asked: `text`, `prompt`, `messages` or `request` is needed");
  return row;
}

}  // namespace

std::optional<Day> day_of(const std::string& text) {
  if (text.size() < 10 || text[4] != '-' || text[7] != '-') return std::nullopt;
  if (text.size() > 10 && std::isdigit(static_cast<unsigned char>(text[10]))) return std::nullopt;
  auto number = [&](size_t begin, size_t size) {
    int value = -1;
    const char* end = text.data() + begin + size;
    const auto [at, error] = std::from_chars(text.data() + begin, end, value);
    return error == std::errc() && at == end ? value : -1;
  };
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2);
  if (year < 0 || month < 0 || day < 0) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return std::nullopt;
  return Day(date);
}

Stream<TrafficRow> read_traffic(const std::filesystem::path& path) {
  auto lines = std::make_shared<LineReader>(path);
  return [lines, line = std::string()](TrafficRow& row) mutable {
    while (lines->next(line)) {
      if (trim(line).empty()) continue;
      row = read_row(parse_json(line, lines->place()), lines->place());
      return true;
    }
    return false;
  };
}

}  // namespace retort
