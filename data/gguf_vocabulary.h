// A vocabulary in memory: read as GGUF stores it, cut to what a domain uses, written as a Hugging Face folder's
// tokenizer files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace retort {

struct GgufVocabulary {
  std::string model;  ///< tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;    ///< tokenizer.ggml.pre
  std::vector<std::string> tokens;
  std::vector<int32_t> types;       ///< TokenType
  std::vector<float> scores;        ///< SentencePiece only
  std::vector<std::string> merges;  ///< BPE only: "left right", first ones first
  int64_t bos = -1, eos = -1, unknown = -1, padding = -1;
  std::vector<int64_t> ends;  ///< every token that ends a generation, eos first
  bool adds_bos = false, adds_eos = false, space_prefix = false;
  std::string chat_template;  ///< Jinja; empty: none
};

/// Of a GGUF file or a Hugging Face folder, as llama.cpp reads it. Error(bad_input) as Tokenizer::open throws it.
GgufVocabulary read_vocabulary(const std::filesystem::path& model);

/// The ids to keep, ascending: those of `wanted` (one flag a token), special and user-defined tokens, the 256 bytes,
/// and every part of a merge that gives a kept token. So every text can still be written, and a text whose tokens are
/// all kept gets the same tokens as before. Tokens of type unused go.
std::vector<int64_t> closed_under_merges(const GgufVocabulary& vocabulary, const std::vector<bool>& wanted);

/// The vocabulary of the tokens `kept` (closed_under_merges), token kept[i] under the id i.
GgufVocabulary cut_vocabulary(const GgufVocabulary& vocabulary, std::span<const int64_t> kept);

/// tokenizer.json and tokenizer_config.json (with the chat template) in `folder`: transformers and Retort make the
/// tokens of them that llama.cpp makes of the vocabulary. Error(bad_input) with `where` for a pre-tokenizer whose rules
/// are not known (find_pre_tokenizer lists them).
void write_tokenizer_files(const GgufVocabulary& vocabulary, const std::filesystem::path& folder,
                           const std::string& where);

}  // namespace retort
