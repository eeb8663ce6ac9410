// What a Hugging Face folder says about its tokenizer, before it becomes GGUF keys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace retort {

enum TokenType : int32_t {
  token_normal = 1,
  token_unknown,
  token_control,
  token_user_defined,
  token_unused,
  token_byte
};

struct VocabularySource {
  std::string model;  ///< tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;    ///< tokenizer.ggml.pre
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;        ///< SentencePiece only
  std::vector<std::string> merges;  ///< BPE only: "left right"
  std::string first, last;          ///< special tokens that the post-processor puts around a text; empty: none
  bool has_template = false;        ///< the post-processor says what is put around a text
  bool space_prefix = false;

  /// Sets token `id`, with [PAD<n>] of type unused before it where there is a hole. Error(bad_input) for an id out of
  /// bounds or one that has another text already.
  void set(int64_t id, const std::string& text, TokenType type, float score, const std::string& where);
};

/// tokenizer.json: byte-level BPE, or a SentencePiece BPE as `tokenizers` writes it (scores then follow the merges'
/// order). Error(bad_input) naming the file and the key for any other model, normalizer or pre-tokenizer.
VocabularySource read_tokenizer_json(const std::filesystem::path& path);

/// tokenizer.model through libsentencepiece.
VocabularySource read_sentencepiece(const std::filesystem::path& path);

/// Some added tokens ought to be control tokens and are not marked so; llama.cpp's converter knows them by their look.
bool looks_special(const std::string& token);

/// tokenizer.ggml.pre for the pre_tokenizer object of a tokenizer.json: the known one that splits by the same rules.
/// Error(bad_input) showing the rules that were found and naming those that are known.
std::string find_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges, const std::string& where);

/// The other way: what a tokenizer.json says for a tokenizer.ggml.pre. Error(bad_input) naming those that are known.
struct PreTokenizer {
  Json json;
  bool ignore_merges = false;
};
PreTokenizer pre_tokenizer_named(const std::string& pre, const std::string& where);

}  // namespace retort
