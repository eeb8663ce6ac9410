// SentencePiece models, read by the library that made them, and compared with llama.cpp's own reading.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace retort {

/// Texts that are hard for tokenizers: spaces, lines, scripts, combining marks, emoji with joiners, digits, controls,
/// long words, things that look special.
const std::vector<std::string>& hard_texts();

/// Error(bad_input) with the first text and token where libsentencepiece, reading tokenizer.model, and `tokenizer`,
/// made from the same model, differ on a set of texts that are hard for tokenizers.
void check_sentencepiece(const std::filesystem::path& path, const Tokenizer& tokenizer);

}  // namespace retort
