#include "data/recorded.h"

#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "core/json.h"
#include "data/text_input.h"

namespace retort {
namespace {

/// A value and where it stands: "answers.jsonl:7: choices[0].logprobs".
struct Field {
  const Json* value;
  std::string where;
};

std::optional<Field> find(const Field& object, const std::string& key) {
  if (!object.value->is_object())
    fail(Exit::bad_input, "{} is {}, an object is needed", object.where, object.value->type_name());
  const auto it = object.value->find(key);
  if (it == object.value->end() || it->is_null()) return std::nullopt;
  return Field{&*it, fmt::format("{}{}{}", object.where, object.where.ends_with(": ") ? "" : ".", key)};
}

Field need(const Field& object, const std::string& key) {
  if (auto field = find(object, key)) return *field;
  fail(Exit::bad_input, "{}{}{} is missing", object.where, object.where.ends_with(": ") ? "" : ".", key);
}

const std::string& text(const Field& field) {
  if (!field.value->is_string())
    fail(Exit::bad_input, "{} is {}, a text is needed", field.where, field.value->type_name());
  return field.value->get_ref<const std::string&>();
}

std::vector<Field> list(const Field& field) {
  if (!field.value->is_array())
    fail(Exit::bad_input, "{} is {}, a list is needed", field.where, field.value->type_name());
  std::vector<Field> entries;
  for (size_t i = 0; i < field.value->size(); ++i)
    entries.push_back({&(*field.value)[i], fmt::format("{}[{}]", field.where, i)});
  return entries;
}

double log_probability(const Field& token) {
  const Field field = need(token, "logprob");
  const double value = field.value->is_number() ? field.value->get<double>() : NAN;
  if (!(value <= 1e-6))
    fail(Exit::bad_input, "{} is {}, a number of at most 0 is needed", field.where, field.value->dump());
  return std::min(value, 0.0);
}

/// `bytes` where it is given: the token's text cannot show a part of a character.
std::string bytes_of(const Field& token) {
  const Field name = need(token, "token");
  const auto field = find(token, "bytes");
  if (!field) return text(name);
  std::string bytes;
  for (const Field& entry : list(*field)) {
    const int64_t byte = json_holds<int64_t>(*entry.value) ? entry.value->get<int64_t>() : -1;
    if (byte < 0 || byte > 255) fail(Exit::bad_input, "{} is {}, a byte is needed", entry.where, entry.value->dump());
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

RecordedToken read_token(const Field& entry) {
  RecordedToken token{bytes_of(entry), log_probability(entry), {}};
  const auto top = find(entry, "top_logprobs");
  if (!top) return token;
  std::set<std::string> seen;
  double mass = 0;
  for (const Field& one : list(*top)) {
    const std::string bytes = bytes_of(one);
    const double log_p = log_probability(one);
    if (!seen.insert(bytes).second) fail(Exit::bad_input, "{}: this token is in the list already", one.where);
    if (bytes == token.bytes && std::abs(log_p - token.log_p) > 0.01)
      fail(Exit::bad_input, "{}.logprob is {}, but {}.logprob of the same token is {}", one.where, log_p, entry.where,
           token.log_p);
    mass += std::exp(log_p);
    token.top.emplace_back(bytes, log_p);
  }
  if (mass > 1.01) fail(Exit::bad_input, "{}: the probabilities sum to {:.3f}, more than 1", top->where, mass);
  return token;
}

class Reader {
 public:
  explicit Reader(const std::string& place, const Json& line) : line_{&line, place + ": "} { answer_.place = place; }

  RecordedAnswer read() {
    read_question();
    read_answer();
    if (answer_.messages.empty() || answer_.messages.back().role != "assistant")
      fail(Exit::bad_input,
           "{}there is no answer: a last message of the assistant, `completion`, `response` or `choices` is needed",
           line_.where);
    if (answer_.messages.size() < 2) fail(Exit::bad_input, "{}messages: there is no question", line_.where);
    const std::string& content = answer_.messages.back().content;
    if (content.empty()) fail(Exit::bad_input, "{}the answer is empty", line_.where);
    if (const auto logprobs = find(line_, "logprobs")) read_logprobs(*logprobs);
    std::string joined;
    for (const RecordedToken& token : answer_.tokens) joined += token.bytes;
    if (!answer_.tokens.empty() && joined != content) {
      const auto at = std::mismatch(joined.begin(), joined.end(), content.begin(), content.end()).first;
      fail(Exit::bad_input,
           "{}{}: the tokens' bytes are not the answer: they differ at byte {} (of {} in the tokens, {} in the answer)",
           line_.where, logprobs_, at - joined.begin(), joined.size(), content.size());
    }
    return std::move(answer_);
  }

 private:
  void read_question() {
    const auto messages = find(line_, "messages"), prompt = find(line_, "prompt");
    if (messages.has_value() == prompt.has_value())
      fail(Exit::bad_input, "{}exactly one of `messages` and `prompt` is needed, found {}", line_.where,
           messages ? "both" : "none");
    if (prompt) {
      if (const auto system = find(line_, "system")) answer_.messages.push_back({"system", text(*system)});
      answer_.messages.push_back({"user", text(*prompt)});
      return;
    }
    static const std::set<std::string> roles = {"system", "user", "assistant", "tool"};
    for (const Field& message : list(*messages)) {
      const Field role = need(message, "role");
      if (!roles.contains(text(role)))
        fail(Exit::bad_input, "{} is \"{}\"; allowed: system, user, assistant, tool", role.where, text(role));
      answer_.messages.push_back({text(role), text(need(message, "content"))});
    }
    if (!answer_.messages.empty() && answer_.messages.back().role == "assistant") answered_ = "messages";
  }

  void add_answer(const Field& content, const std::string& by) {
    if (!answered_.empty()) {
      if (answered_ == "messages" && answer_.messages.back().content == text(content)) return;
      fail(Exit::bad_input, "{} is a second answer: {} gives one already{}", content.where, answered_,
           answered_ == "messages" ? ", another one" : "");
    }
    answered_ = by;
    answer_.messages.push_back({"assistant", text(content)});
  }

  void read_answer() {
    if (const auto model = find(line_, "model")) answer_.model = text(*model);
    if (const auto completion = find(line_, "completion")) add_answer(*completion, "completion");
    if (find(line_, "choices")) read_completion(line_);
    if (const auto response = find(line_, "response")) {
      const auto body = find(*response, "body");  // a line of a batch's results
      read_completion(body ? *body : *response);
    }
  }

  void read_completion(const Field& completion) {
    if (const auto model = find(completion, "model")) answer_.model = text(*model);
    const Field choices = need(completion, "choices");
    const std::vector<Field> all = list(choices);
    if (all.size() != 1) fail(Exit::bad_input, "{} has {} answers, one a line is needed", choices.where, all.size());
    const Field& choice = all[0];
    if (const auto reason = find(choice, "finish_reason"); reason && text(*reason) != "stop")
      fail(Exit::bad_input,
           "{} is \"{}\": the answer did not end by itself, and the student would learn to stop there; remove the line",
           reason->where, text(*reason));
    add_answer(need(need(choice, "message"), "content"), choice.where);
    if (const auto logprobs = find(choice, "logprobs")) read_logprobs(*logprobs);
  }

  void read_logprobs(const Field& logprobs) {
    if (!logprobs_.empty()) fail(Exit::bad_input, "{}: there are log-probabilities twice", logprobs.where);
    const auto content = find(logprobs, "content");
    if (!content) return;  // services write null where they have none
    logprobs_ = content->where.substr(line_.where.size());
    for (const Field& entry : list(*content)) answer_.tokens.push_back(read_token(entry));
  }

  Field line_;
  RecordedAnswer answer_;
  std::string answered_;  ///< the field that gave the answer
  std::string logprobs_;  ///< the field that gave the log-probabilities
};

}  // namespace

Stream<RecordedAnswer> read_recorded(const std::filesystem::path& path) {
  auto lines = std::make_shared<LineReader>(path);
  return [lines, line = std::string()](RecordedAnswer& answer) mutable {
    while (lines->next(line)) {
      if (trim(line).empty()) continue;
      const Json json = parse_json(line, lines->place());
      answer = Reader(lines->place(), json).read();
      return true;
    }
    return false;
  };
}

}  // namespace retort
