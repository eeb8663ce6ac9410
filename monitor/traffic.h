// Fresh traffic as a serving log gives it: what was asked and, where the log has it, what was answered, when, and what
// the right answer would have been.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "data/example.h"

namespace retort {

using Day = std::chrono::sys_days;

struct TrafficRow {
  std::string place;  ///< file:line
  std::string text;   ///< what was asked: every message before the answer, with empty lines between
  std::optional<std::string> answer, label;
  std::optional<Day> day;
};

/// JSON Lines; keys that are not named here are ignored. An object a line:
///   asked:    `text`, `prompt` (with an optional `system`), or `messages`; or the same inside `request` or its `body`
///   answered: a last message of the assistant, `answer`, `completion`, `choices`, or `response` (a text, or a chat
///             completion, also inside `body`); nothing is fine too
///   `label` (or `expected`): the right answer; `time` (or `timestamp`, `created`): a date that begins YYYY-MM-DD, or
///             seconds since 1970 (UTC)
/// Error(bad_input) with file, line and field for what has the wrong type, and for a line with nothing asked.
Stream<TrafficRow> read_traffic(const std::filesystem::path& path);

/// A date that a text begins with, YYYY-MM-DD; nothing when there is none or the calendar has no such day.
std::optional<Day> day_of(const std::string& text);

}  // namespace retort
