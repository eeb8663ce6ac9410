#include "data/encode.h"

#include <algorithm>

#include "core/error.h"

namespace retort {
namespace {

/// Around the first difference, so that the message stays short and shows what matters.
std::string excerpt(const std::string& text, size_t at) {
  size_t begin = at > 60 ? at - 60 : 0;
  std::string piece = text.substr(begin, 120);
  std::string shown = Json(piece).dump(-1, ' ', false, Json::error_handler_t::replace);
  return (begin > 0 ? "..." : "") + shown + (begin + 120 < text.size() ? "..." : "");
}

/// The text that `longer` adds to `shorter`; Error(bad_input) when it does not begin with it.
std::string added_text(const std::string& shorter, const std::string& longer, const std::string& place, size_t message,
                       const std::string& what) {
  if (longer.starts_with(shorter)) return longer.substr(shorter.size());
  size_t at = std::mismatch(shorter.begin(), shorter.end(), longer.begin(), longer.end()).first - shorter.begin();
  fail(Exit::bad_input,
       "{}: the chat template's prefixes do not nest at message {}: {} gives {} where the messages before it gave {}. "
       "The "
       "template changes earlier text when a message is added, so trained tokens would differ from served ones; "
       "train_on: last_assistant needs only the last turn to nest, or give another template under data.chat_template",
       place, message + 1, what, excerpt(longer, at), excerpt(shorter, at));
}

/// ids += the tokens of `text`, whose beginning `done` is what ids stand for. Takes the tokens of the whole text when
/// ids are a prefix of them, as a server tokenizes a whole prompt; else ids stay as they are and the rest continues
/// them.
void extend(const Tokenizer& tokenizer, const std::string& done, const std::string& text, std::vector<int32_t>& ids) {
  std::vector<int32_t> whole = tokenizer.encode(text, true, true);
  if (tokenizer.adds_eos() && !whole.empty()) whole.pop_back();  // the template says where a turn ends
  if (std::mismatch(ids.begin(), ids.end(), whole.begin(), whole.end()).first == ids.end()) {
    ids = std::move(whole);
    return;
  }
  std::vector<int32_t> rest = tokenizer.encode_after(text.substr(done.size()));
  ids.insert(ids.end(), rest.begin(), rest.end());
}

struct Turns {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;
};

/// Tokens up to the end of the last assistant turn that matters.
Turns encode_turns(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat, TrainOn train_on) {
  std::span<const Message> messages(chat.messages);
  size_t last = messages.size();
  while (last > 0 && messages[last - 1].role != "assistant") --last;
  if (last == 0 && train_on != TrainOn::all)
    fail(Exit::bad_input, "{}: no trained token: none of the {} messages has the role \"assistant\"", chat.place,
         messages.size());
  Turns turns;
  std::string done;
  for (size_t i = 0; i < last; ++i) {
    if (messages[i].role != "assistant" || (train_on == TrainOn::last_assistant && i + 1 != last)) continue;
    std::string prompt = chat_template.render(messages.first(i), true);
    added_text(done, prompt, chat.place, i, "the prompt");
    extend(tokenizer, done, prompt, turns.ids);
    size_t begin = turns.ids.size();
    turns.trained.resize(begin, 0);
    std::string text = chat_template.render(messages.first(i + 1), false);
    added_text(prompt, text, chat.place, i, "the assistant's turn");
    extend(tokenizer, prompt, text, turns.ids);
    size_t end = turns.ids.size();
    while (end > begin && !tokenizer.ends_generation(turns.ids[end - 1])) --end;
    if (end == begin)
      fail(Exit::bad_input,
           "{}: an end-of-turn that is never trained: the template renders message {} as {}, and none of its tokens "
           "ends "
           "generation in this vocabulary, so the model would never learn to stop; use a template that closes the "
           "assistant's turn with the model's end-of-turn or end-of-text token",
           chat.place, i + 1, excerpt(text.substr(prompt.size()), 0));
    turns.trained.resize(end, 1);
    turns.trained.resize(turns.ids.size(), 0);
    done = std::move(text);
  }
  if (train_on == TrainOn::all) {
    std::string text = chat_template.render(messages, false);
    added_text(done, text, chat.place, messages.size() - 1, "the whole chat");
    extend(tokenizer, done, text, turns.ids);
    turns.trained.assign(turns.ids.size(), 1);
  } else {
    // What follows the last end-of-turn (ChatML's newline) is neither predicted nor conditions anything.
    size_t end = turns.ids.size();
    while (end > 0 && !turns.trained[end - 1]) --end;
    turns.ids.resize(end);
    turns.trained.resize(end);
  }
  return turns;
}

Turns encode_text(const Tokenizer& tokenizer, const Chat& chat) {
  Turns turns;
  // Text of special tokens stays text here: a document that mentions <|im_end|> must not end a turn.
  turns.ids = tokenizer.encode(chat.text, false, true);
  if (!tokenizer.adds_eos()) {
    if (tokenizer.eos() < 0)
      fail(Exit::bad_input, "{}: plain text needs an end-of-text token, and the model's vocabulary names none",
           chat.place);
    turns.ids.push_back(tokenizer.eos());
  }
  turns.trained.assign(turns.ids.size(), 1);
  return turns;
}

void check_bos(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, const std::string& place) {
  if (ids.size() >= 2 && tokenizer.bos() >= 0 && ids[0] == tokenizer.bos() && ids[1] == tokenizer.bos())
    fail(Exit::bad_input,
         "{}: a doubled BOS: the row begins with token {} ({}) twice; {} writes it once more than the model was "
         "trained with",
         place, ids[0], tokenizer.piece(ids[0]),
         tokenizer.adds_bos() ? "the vocabulary adds BOS itself, and the template or the row's text" : "the template");
}

/// The messages before the assistant's last answer.
std::span<const Message> before_answer(const Chat& chat) {
  std::span<const Message> messages(chat.messages);
  if (!messages.empty() && messages.back().role == "assistant") messages = messages.first(messages.size() - 1);
  if (messages.empty()) fail(Exit::bad_input, "{}: a prompt needs at least one message before the answer", chat.place);
  return messages;
}

}  // namespace

TrainOn train_on_from(std::string_view name) {
  if (name == "assistant") return TrainOn::assistant;
  if (name == "last_assistant") return TrainOn::last_assistant;
  if (name == "all") return TrainOn::all;
  fail(Exit::usage, "train_on: \"{}\" is not known; allowed: assistant, last_assistant, all", name);
}

Truncation truncation_from(std::string_view name) {
  if (name == "right") return Truncation::right;
  if (name == "left") return Truncation::left;
  if (name == "drop") return Truncation::drop;
  if (name == "error") return Truncation::error;
  fail(Exit::usage, "truncation: \"{}\" is not known; allowed: right, left, drop, error", name);
}

std::optional<Example> encode(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat,
                              const EncodeOptions& options, Ledger& ledger) {
  if (options.max_length < 2) fail(Exit::usage, "max_length: {} is too short; at least 2 tokens", options.max_length);
  ledger.rows += 1;
  Turns turns = chat.messages.empty() ? encode_text(tokenizer, chat)
                                      : encode_turns(tokenizer, chat_template, chat, options.train_on);
  check_bos(tokenizer, turns.ids, chat.place);
  // Nothing comes before the first token, so nothing can predict it.
  if (!turns.trained.empty()) turns.trained[0] = 0;
  int64_t trained = std::count(turns.trained.begin(), turns.trained.end(), 1);
  int64_t tokens = static_cast<int64_t>(turns.ids.size());
  if (trained == 0)
    fail(Exit::bad_input, "{}: no trained token: the row has {} tokens and nothing to learn", chat.place, tokens);

  Example example{chat.place, chat.key, std::move(turns.ids), std::move(turns.trained), false};
  if (tokens > options.max_length) {
    if (options.truncation == Truncation::error)
      fail(Exit::bad_input,
           "{}: the row has {} tokens, max_length is {}; raise it, or set truncation: right, left or drop", chat.place,
           tokens, options.max_length);
    if (options.truncation == Truncation::drop) {
      ledger.dropped["longer than max_length"] += 1;
      return std::nullopt;
    }
    example.truncated = true;
    if (options.truncation == Truncation::left) {
      // A BOS stays in front: the model has never seen a document without it.
      int64_t kept = tokenizer.adds_bos() ? 1 : 0;
      example.ids.erase(example.ids.begin() + kept, example.ids.end() - (options.max_length - kept));
      example.trained.erase(example.trained.begin() + kept, example.trained.end() - (options.max_length - kept));
      example.trained[0] = 0;
    } else {
      example.ids.resize(options.max_length);
      example.trained.resize(options.max_length);
    }
    trained = std::count(example.trained.begin(), example.trained.end(), 1);
    if (trained == 0)
      fail(Exit::bad_input,
           "{}: the row lost its whole answer to truncation: it has {} tokens, max_length is {}, and none of those "
           "that are "
           "left is trained; raise max_length, or set truncation: left (keep the answer) or drop",
           chat.place, tokens, options.max_length);
    ledger.truncated += 1;
  }
  ledger.tokens += static_cast<int64_t>(example.ids.size());
  ledger.trained_tokens += trained;
  return example;
}

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat) {
  std::vector<int32_t> ids;
  extend(tokenizer, "", chat_template.render(before_answer(chat), true), ids);
  check_bos(tokenizer, ids, chat.place);
  return ids;
}

std::vector<int32_t> encode_answer(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const Chat& chat,
                                   const std::string& answer) {
  std::span<const Message> before = before_answer(chat);
  Chat whole{chat.place, chat.key, {before.begin(), before.end()}, {}, {}};
  whole.messages.push_back({"assistant", answer});
  Turns turns = encode_turns(tokenizer, chat_template, whole, TrainOn::last_assistant);
  auto first = std::find(turns.trained.begin(), turns.trained.end(), 1) - turns.trained.begin();
  return {turns.ids.begin() + first, turns.ids.end()};
}

}  // namespace retort
