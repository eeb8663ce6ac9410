// A chat or a text becomes tokens, and which of them are trained.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template.h"
#include "data/example.h"
#include "data/loader.h"
#include "data/tokenizer.h"

namespace retort {

enum class TrainOn { assistant, last_assistant, all };

/// What happens to a row of more than max_length tokens.
enum class Truncation {
  right,  ///< cut the end; an error when the row then has no trained token left
  left,   ///< cut the beginning: the answer stays
  drop,   ///< leave the row out, counted in the ledger
  error   ///< stop
};

/// By the names that a recipe uses; Error(usage) lists the allowed ones.
TrainOn train_on_from(std::string_view name);
Truncation truncation_from(std::string_view name);

struct EncodeOptions {
  int64_t max_length = 2048;
  TrainOn train_on = TrainOn::assistant;
  Truncation truncation = Truncation::right;
};

/// Tokens of one row; counted in the ledger, nullopt when the row was dropped (the ledger says why).
///
/// A chat: for each assistant turn, the prompt is what the template renders of the messages before it with a generation
/// prompt, the answer is what rendering the turn itself adds. The prompt's tokens are those that a server makes of that
/// text; the answer continues them, also where tokenizing both together would merge across the border. An answer's
/// trained span ends with its last end-of-generation token; nothing after the last trained token is kept. A text: all
/// its tokens and an EOS, all trained.
///
/// Error(bad_input) naming chat.place: prefixes that do not nest (with both strings), no trained token, an answer whose
/// end-of-turn is no end-of-generation token, a doubled BOS, a row that lost its whole answer to truncation.
std::optional<Example> encode(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat,
                              const EncodeOptions& options, Ledger& ledger);

/// The tokens that a server evaluates before it answers: chat without its last message when that is the assistant's.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat);

/// The tokens that an answer in place of the last assistant message adds to encode_prompt, its end-of-turn included:
/// the same ones that encode() trains.
std::vector<int32_t> encode_answer(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat,
                                   const std::string& answer);

}  // namespace retort
