// Vocabularies as GGUF stores them: checked before libllama reads them.
#pragma once

#include <string>

struct gguf_context;

namespace retort {

/// Error(bad_input) with `where`, the key and the entry for a vocabulary that would make libllama abort, lose text or
/// tokenize otherwise than its maker meant: arrays of wrong type or length, tokens that are not unique, merges that are
/// no pair or whose result is no token, special ids out of range.
void check_vocabulary(const gguf_context* metadata, const std::string& where);

/// SHA-256 over everything in the metadata that changes what text becomes which tokens.
std::string hash_vocabulary(const gguf_context* metadata);

}  // namespace retort
