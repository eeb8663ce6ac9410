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
/// SplitMix64's: every bit of the result depends on every bit of `z`.
inline uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// use(hash) for each n consecutive words, in order, with a 64-bit hash; never when there are fewer than n.
template <typename Use>
void each_word_gram(const Words& words, size_t n, Use use) {
  constexpr uint64_t base = 0x9e3779b97f4a7c15;
  const std::vector<uint64_t>& hashes = words.hashes;
  if (n == 0 || hashes.size() < n) return;
  // Σ hash[i] base^(n - 1 - i) modulo 2^64, rolled on: the word hashes are random, so the sum is too.
  uint64_t sum = 0, leaving = 1;
  for (size_t i = 0; i < n; ++i) leaving *= base;
  for (size_t i = 0; i + 1 < n; ++i) sum = sum * base + hashes[i];
  for (size_t i = n - 1; i < hashes.size(); ++i) {
    sum = sum * base + hashes[i];
    if (i >= n) sum -= leaving * hashes[i - n];
    use(mixed(sum));
  }
}
/// The hashes of each_word_gram().
std::vector<uint64_t> word_grams(const Words& words, size_t n);
/// A 64-bit hash of all words in order.
uint64_t hash_of(const Words& words);

}  // namespace retort
