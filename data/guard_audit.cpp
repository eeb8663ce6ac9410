#include "data/guard_audit.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <random>

#include "core/files.h"
#include "core/hash.h"
#include "data/text_input.h"

namespace retort {
namespace {

constexpr size_t fewest_key_bytes = 16;
constexpr const char* key_variable = "RETORT_PROJECT_KEY";

std::string hex(std::string_view bytes) {
  constexpr const char* digits = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : bytes) text += digits[byte >> 4], text += digits[byte & 15];
  return text;
}

/// A JSON string. Most need no escapes, and a row may have dozens of findings.
std::string quoted(const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f && c != '"' && c != '\\';
  });
  return plain ? '"' + text + '"' : Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// What a row says, without ambiguity, for hashing.
std::string identity_of(const Chat& chat) {
  std::string text = fmt::format("{}:{}", chat.text.size(), chat.text);
  for (const Message& message : chat.messages)
    text += fmt::format("|{}|{}:{}", message.role, message.content.size(), message.content);
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
  const bool file = !options.key_file.empty();
  const char* variable = std::getenv(key_variable);
  std::string text;
  if (file)
    text = read_text(options.key_file, 1 << 16);
  else if (variable)
    text.assign(variable);
  const std::string_view key = trim(text);
  if (key.empty() && !file) return {};
  if (key.size() < fewest_key_bytes)
    fail(Exit::usage, "{}: the project's key has {} bytes, at least {} are needed (openssl rand -hex 32)",
         file ? options.key_file : key_variable, key.size(), fewest_key_bytes);
  return std::string(key);
}

std::string_view value_of(const Chat& chat, const Finding& finding) {
  const std::string& text =
      finding.message == Finding::whole_text ? chat.text : chat.messages[static_cast<size_t>(finding.message)].content;
  return std::string_view(text).substr(finding.begin, finding.end - finding.begin);
}

GuardAudit::GuardAudit(std::string key) : key_(key.empty() ? random_key() : std::move(key)) {}

std::string GuardAudit::begin_row(const Chat& chat) const {
  return fmt::format(R"({{"row":"{}","place":{})", hex(hmac_sha256(key_, identity_of(chat))), quoted(chat.place));
}

std::string GuardAudit::line(const std::string& row, const Chat& chat, const std::string& guard, const Finding& finding,
                             GuardAction action) const {
  std::string line =
      fmt::format(R"({},"guard":"{}","rule":{},"action":"{}")", row, guard, quoted(finding.rule), name_of(action));
  if (finding.begin < finding.end) {
    const bool text = finding.message == Finding::whole_text;
    line +=
        fmt::format(R"(,"message":{},"begin":{},"end":{},"hmac":"{}")", text ? "null" : std::to_string(finding.message),
                    finding.begin, finding.end, hex(hmac_sha256(key_, value_of(chat, finding))));
  }
  if (!finding.detail.empty()) line += ",\"detail\":" + quoted(finding.detail);
  return line + "}\n";
}

std::string GuardAudit::placeholder(const Chat& chat, const Finding& finding, GuardAction action) const {
  std::string text = "[";
  for (char c : finding.rule) text += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  if (action == GuardAction::hash)
    text.append(":").append(hex(hmac_sha256(key_, value_of(chat, finding)).substr(0, 8)));
  return text + "]";
}

}  // namespace retort
