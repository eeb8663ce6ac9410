// Vocabularies as GGUF stores them: written from a Hugging Face folder, checked before libllama reads them.
#pragma once

#include <filesystem>
#include <string>

struct gguf_context;

namespace retort {

class GgufWriter;

/// The keys tokenizer.* for the tokenizer of a Hugging Face folder: tokenizer.model (SentencePiece) where there is one,
/// else tokenizer.json (byte-level BPE, or SentencePiece BPE as `tokenizers` writes it), special tokens from
/// tokenizer_config.json and config.json, padded to config.json's vocab_size, the chat template. Error(bad_input) names
/// the file and the key.
void write_vocabulary(const std::filesystem::path& folder, GgufWriter& writer);

/// A GGUF file with nothing but those keys, in the cache under the hash of the folder's tokenizer files.
std::filesystem::path vocabulary_file(const std::filesystem::path& folder);

/// Error(bad_input) with `where`, the key and the entry for a vocabulary that would make libllama abort, lose text or
/// tokenize otherwise than its maker meant: arrays of wrong type or length, tokens that are not unique, merges that are
/// no pair or whose result is no token, special ids out of range.
void check_vocabulary(const gguf_context* metadata, const std::string& where);

/// SHA-256 over everything in the metadata that changes what text becomes which tokens.
std::string hash_vocabulary(const gguf_context* metadata);

}  // namespace retort
