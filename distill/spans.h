// Two tokenizations of one text, and where they meet.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace retort {

/// Tokens [student_begin, student_end) and [teacher_begin, teacher_end) cover the same bytes, and no shorter stretch
/// from their beginning does: between two meeting points no other lies.
struct Span {
  int64_t student_begin = 0, student_end = 0, teacher_begin = 0, teacher_end = 0;
  bool operator==(const Span&) const = default;
};

/// What a token stands for in an alignment: its bytes, which need not be whole characters. A token that ends generation
/// is the byte FF, whatever its text is, so that the two vocabularies' ends meet; no text holds that byte. Other
/// special tokens are their text.
std::vector<std::string> token_bytes(const Tokenizer& tokenizer, std::span<const int32_t> ids);

/// Meeting points of two tokenizations, in ascending order. Both sides' leading white space may differ (a SentencePiece
/// vocabulary puts a space in front, a template may trim): it is then left out. From the first byte that differs on
/// nothing is aligned. Tokens without bytes belong to the span that they stand in.
std::vector<Span> align_spans(std::span<const std::string> student, std::span<const std::string> teacher);

}  // namespace retort
