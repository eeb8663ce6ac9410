// SentencePiece models, read by the library that made them, and compared with llama.cpp's own reading.
#pragma once

#include <filesystem>

#include "data/tokenizer.h"

namespace retort {

/// Error(bad_input) with the first text and token where libsentencepiece, reading tokenizer.model, and `tokenizer`,
/// made from the same model, differ on a set of texts that are hard for tokenizers.
void check_sentencepiece(const std::filesystem::path& path, const Tokenizer& tokenizer);

}  // namespace retort
