// A teacher's answers to a recipe's questions, recorded as a data set: distillation by sequences.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/progress.h"
#include "data/chat_template.h"
#include "models/served.h"
#include "recipes/recipe.h"

namespace retort {

struct RecordOptions {
  double temperature = 0;  ///< 0: the most likely token
  int64_t samples = 1;     ///< answers to a question
  int64_t max_tokens = 256;
  uint64_t seed = 0;
};

struct RecordReport {
  int64_t questions = 0;   ///< different ones
  int64_t answers = 0;     ///< written now
  int64_t before = 0;      ///< found in what an earlier call left
  int64_t unfinished = 0;  ///< cut at max_tokens, or empty: not recorded
  int64_t tokens = 0;      ///< generated now
  double seconds = 0;
};

/// Asks `model`, which reads chats through `chat_template`, what every row of the recipe's data.train asks, and writes
/// a JSON line {"model", "sample", "messages"} for each finished answer: what `kind: recorded` reads. Lines gather in
/// <out>.part, which gets its name when all is asked; a call that finds one goes on there. The answer to a question
/// depends on its text, the seed and the number of the sample, not on the rows around it. Errors: Error(bad_input)
/// naming the row that has no question, Error(io), Error(retry) after a stop signal or while another process writes.
RecordReport record_answers(const Recipe& recipe, ServedModel& model, const Tokenizer& tokenizer,
                            const ChatTemplate& chat_template, const std::string& model_name,
                            const RecordOptions& options, const std::filesystem::path& out,
                            const ProgressSink& progress);

}  // namespace retort
