// Text to tokens as the served file does it: through libllama's vocabulary.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace retort {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// From a GGUF file, or from a Hugging Face folder (tokenizer.json or tokenizer.model) through the vocabulary GGUF
  /// that write_vocabulary makes for it. Where tokenizer.model exists both ways must agree on a set of hard texts.
  static std::unique_ptr<Tokenizer> open(const std::filesystem::path& model);

  /// `special`: text of special tokens becomes those tokens. `bos`: the model's own rule adds BOS (and EOS) where it
  /// wants them.
  virtual std::vector<int32_t> encode(const std::string& text, bool special, bool bos = false) const = 0;
  /// Tokens of text that goes on after other tokens: as encode(text, true), but without the space that a SentencePiece
  /// vocabulary puts in front of the first character.
  virtual std::vector<int32_t> encode_after(const std::string& text) const = 0;
  virtual std::string decode(std::span<const int32_t> ids, bool special = false) const = 0;
  /// The text of one token, also of special ones.
  virtual std::string piece(int32_t id) const = 0;
  virtual int64_t size() const = 0;
  virtual int32_t bos() const = 0;  ///< -1: none
  virtual int32_t eos() const = 0;
  virtual bool adds_bos() const = 0;
  virtual bool adds_eos() const = 0;
  virtual bool ends_generation(int32_t id) const = 0;
  /// SHA-256 over tokens, types, scores, merges, the pre-tokenizer and the rules for BOS, EOS and the leading space.
  virtual std::string hash() const = 0;
  /// The chat template in Jinja, empty when the model has none.
  virtual std::string chat_template() const = 0;
};

}  // namespace retort
