// Answers of a model behind a service, as JSON Lines: what was asked, what it answered, and, where the service gives
// them, the log-probabilities of the answer's tokens.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/example.h"

namespace retort {

/// One token of an answer, in the service's vocabulary.
struct RecordedToken {
  std::string bytes;
  double log_p = 0;                                 ///< nats
  std::vector<std::pair<std::string, double>> top;  ///< the most probable tokens' bytes and log-probabilities
};

struct RecordedAnswer {
  std::string place;                  ///< file:line
  std::string model;                  ///< as the service names it; may be empty
  std::vector<Message> messages;      ///< the answer is the last one
  std::vector<RecordedToken> tokens;  ///< together the answer's bytes; empty: no log-probabilities
};

/// A line is an object. Asked: `messages`, or `prompt` with an optional `system`. Answered, exactly once: a last
/// message of the assistant, `completion`, or a chat completion as services return it, in `response` or `choices`, with
/// the model's name. Log-probabilities: `logprobs` of the choice or of the line, {"content": [{"token", "logprob",
/// "bytes", "top_logprobs": [{"token", "logprob", "bytes"}]}]}. Error(bad_input) with file, line and field for what is
/// missing, contradicts another field, or was cut off.
Stream<RecordedAnswer> read_recorded(const std::filesystem::path& path);

}  // namespace retort
