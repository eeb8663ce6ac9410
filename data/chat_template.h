// The model's chat template, rendered as llama.cpp's server renders it.
#pragma once

#include <ctime>
#include <optional>
#include <span>
#include <string>

#include "core/jinja.h"
#include "data/example.h"
#include "data/tokenizer.h"

namespace retort {

class ChatTemplate {
 public:
  /// `source`: Jinja; empty: the tokenizer's own. A model without any still makes an object: only render() fails then,
  /// so that plain text can be trained on. `now` is the date that templates with strftime_now print; it is part of
  /// hash() for those, so a run that is resumed on another day must be given the first day's value.
  explicit ChatTemplate(const Tokenizer& tokenizer, const std::string& source = "",
                        std::time_t now = std::time(nullptr));

  /// The text that llama.cpp's server would tokenize: a leading BOS is cut off where the vocabulary adds its own,
  /// "developer" is "system", and a system message goes into the next one where the template knows no such role.
  /// Error(bad_input) with the engine's words.
  std::string render(std::span<const Message> messages, bool add_generation_prompt) const;

  const std::string& source() const { return source_; }
  /// SHA-256 over everything that changes what render() gives.
  std::string hash() const;

 private:
  std::string source_, bos_, eos_;
  bool adds_bos_;
  std::time_t now_;
  std::optional<JinjaTemplate> jinja_;
  JinjaTemplate::ChatAbilities abilities_;
};

}  // namespace retort
