// The words of a text as duplicates and contamination are looked for: what stays when letter case, punctuation and
// spacing change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace retort {

/// A word is a run of letters and digits, folded to lower case (Latin, Greek, Cyrillic and Armenian); each character
/// of a script that writes no spaces (Han, kana, Thai, Lao, Khmer, Myanmar) is a word. Everything else separates, bytes
/// that are no UTF-8 too.
struct Words {
  std::vector<uint64_t> hashes;  ///< XXH3 of each word's folded UTF-8

  void add(std::string_view text);
};

/// Whether there is a letter of any script in the text.
bool has_letter(std::string_view text);
/// A 64-bit hash of each n consecutive words, in order; none when there are fewer than n.
std::vector<uint64_t> word_grams(const Words& words, size_t n);
/// A 64-bit hash of all words in order.
uint64_t hash_of(const Words& words);

}  // namespace retort
