#include "distill/spans.h"

namespace retort {
namespace {

/// Where each token begins in the text that they make, and the text's length.
std::vector<size_t> starts_of(std::span<const std::string> tokens) {
  std::vector<size_t> starts = {0};
  for (const std::string& token : tokens) starts.push_back(starts.back() + token.size());
  return starts;
}

std::string joined(std::span<const std::string> tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

}  // namespace

std::vector<std::string> token_bytes(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::vector<std::string> bytes;
  for (int32_t id : ids) bytes.push_back(tokenizer.ends_generation(id) ? "\xFF" : tokenizer.piece(id));
  return bytes;
}

std::vector<Span> align_spans(std::span<const std::string> student, std::span<const std::string> teacher) {
  const std::string mine = joined(student), theirs = joined(teacher);
  const std::vector<size_t> my_starts = starts_of(student), their_starts = starts_of(teacher);
  const size_t my_first = std::min(mine.find_first_not_of(" \t\r\n"), mine.size()),
               their_first = std::min(theirs.find_first_not_of(" \t\r\n"), theirs.size());
  // Texts that begin with the same white space are compared with it.
  const bool same_space = mine.compare(0, my_first, theirs, 0, their_first) == 0;
  const size_t my_offset = same_space ? 0 : my_first, their_offset = same_space ? 0 : their_first;
  size_t common = 0;
  while (my_offset + common < mine.size() && their_offset + common < theirs.size() &&
         mine[my_offset + common] == theirs[their_offset + common])
    ++common;

  // Where tokens begin in the common text; what lies in white space that the other side lacks begins with it.
  auto place = [](size_t start, size_t offset) { return start > offset ? start - offset : 0; };
  std::vector<Span> spans;
  size_t i = 0, j = 0;  // tokens before the last meeting point
  bool met = false;
  for (size_t m = 0, t = 0; m < my_starts.size() && t < their_starts.size();) {
    const size_t a = place(my_starts[m], my_offset), b = place(their_starts[t], their_offset);
    if (a < b) {
      ++m;
    } else if (b < a) {
      ++t;
    } else {
      if (a > common) break;
      // Of several borders at one byte (tokens without bytes) the last pair counts.
      while (m + 1 < my_starts.size() && place(my_starts[m + 1], my_offset) == a) ++m;
      while (t + 1 < their_starts.size() && place(their_starts[t + 1], their_offset) == b) ++t;
      if (met)
        spans.push_back(
            {static_cast<int64_t>(i), static_cast<int64_t>(m), static_cast<int64_t>(j), static_cast<int64_t>(t)});
      met = true;
      i = m++;
      j = t++;
    }
  }
  return spans;
}

}  // namespace retort
