// A row on its way through: fields from a file, a chat after its task, tokens with spans that are trained.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace retort {

/// One record of a dataset file. `place` is "file:line" (or ":entry n") for messages.
struct Row {
  std::string place;
  Json fields;  ///< object
};

struct Message {
  std::string role, content;
};

/// A row after its task: a conversation or plain text, and what evaluators need.
struct Chat {
  std::string place;
  std::string key;                   ///< what the split hashed; names the row in reports
  std::vector<Message> messages;     ///< the last one is the assistant's answer in training rows
  std::string text;                  ///< plain text instead of messages
  std::vector<std::string> choices;  ///< allowed answers, for choice_accuracy
};

/// Tokens and which of them are trained. labels are not shifted here: trained[t] says that ids[t] is a target.
struct Example {
  std::string place, key;
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;
  bool truncated = false;
};

/// A pull stream: false at the end.
template <typename T>
using Stream = std::function<bool(T&)>;

}  // namespace retort
