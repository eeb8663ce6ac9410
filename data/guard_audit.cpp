#include "data/guard_audit.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <random>

#include "data/project_key.h"
#include "data/text_input.h"

namespace retort {
namespace {

constexpr const char* key_variable = "RETORT_PROJECT_KEY";

std::string hex(std::string_view bytes) {
  constexpr const char* digits = "0123456789abcdef";
  std::string text(2 * bytes.size(), 0);
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    text[2 * i] = digits[byte >> 4], text[2 * i + 1] = digits[byte & 15];
  }
  return text;
}

/// Appends a JSON string. Most need no escapes, and a row may have dozens of findings.
void append_quoted(const std::string& text, std::string& line) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f && c != '"' && c != '\\';
  });
  if (plain)
    line.append(1, '"').append(text).append(1, '"');
  else
    line += Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// What a row says, without ambiguity, for hashing.
std::string identity_of(const Chat& chat) {
  std::string text;
  const auto add = [&](const std::string& part) {
    text.append(std::to_string(part.size())).append(1, ':').append(part);
  };
  add(chat.text);
  for (const Message& message : chat.messages) {
    text.append(1, '|').append(message.role).append(1, '|');
    add(message.content);
  }
  return text;
}

std::string random_key() {
  std::random_device random;
  std::string key;
  for (int i = 0; i < 8; ++i) key += fmt::format("{:08x}", random());
  return key;
}

}  // namespace

std::string guard_key(const GuardsOptions& options) {
  const char* variable = std::getenv(key_variable);
  if (options.key_file.empty() && (!variable || trim(variable).empty())) return {};
  const std::string where = options.key_file.empty() ? fmt::format("env:{}", key_variable) : options.key_file;
  return project_key(where, "data.guards.key_file");
}

std::string_view value_of(const Chat& chat, const Finding& finding) {
  const std::string& text =
      finding.message == Finding::whole_text ? chat.text : chat.messages[static_cast<size_t>(finding.message)].content;
  return std::string_view(text).substr(finding.begin, finding.end - finding.begin);
}

GuardAudit::GuardAudit(const std::string& key) : hmac_(key.empty() ? random_key() : key) {}

std::string GuardAudit::begin_row(const Chat& chat) const {
  std::string line = "{\"row\":\"" + hex(hmac_(identity_of(chat))) + "\",\"place\":";
  append_quoted(chat.place, line);
  return line;
}

std::string GuardAudit::line(const std::string& row, const Chat& chat, const std::string& guard, const Finding& finding,
                             GuardAction action) const {
  std::string line;
  line.reserve(row.size() + guard.size() + finding.rule.size() + finding.detail.size() + 180);
  line.append(row).append(",\"guard\":\"").append(guard).append("\",\"rule\":");
  append_quoted(finding.rule, line);
  line.append(",\"action\":\"").append(name_of(action)).append(1, '"');
  if (finding.begin < finding.end) {
    const bool text = finding.message == Finding::whole_text;
    fmt::format_to(std::back_inserter(line), R"(,"message":{},"begin":{},"end":{},"hmac":"{}")",
                   text ? "null" : std::to_string(finding.message), finding.begin, finding.end,
                   hex(hmac_(value_of(chat, finding))));
  }
  if (!finding.detail.empty()) {
    line += ",\"detail\":";
    append_quoted(finding.detail, line);
  }
  return line.append("}\n");
}

std::string GuardAudit::placeholder(const Chat& chat, const Finding& finding, GuardAction action) const {
  std::string text = "[";
  for (char c : finding.rule) text += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  if (action == GuardAction::hash) text.append(":").append(hex(hmac_(value_of(chat, finding)).substr(0, 8)));
  return text + "]";
}

}  // namespace retort
