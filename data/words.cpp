#include "data/words.h"

#define XXH_INLINE_ALL  // words are short: the call would cost as much as the hash
#include <xxhash.h>

#include <algorithm>
#include <array>

namespace retort {
namespace {

enum Class : uint8_t { separator, letter, alone };

/// A byte below 0x80: its folded letter, or 0 for a separator. Symbols that change what a formula says are words.
constexpr std::array<uint8_t, 128> ascii = [] {
  std::array<uint8_t, 128> table{};
  for (char c = '0'; c <= '9'; ++c) table[c] = c;
  for (char c = 'a'; c <= 'z'; ++c) table[c] = c, table[c - 'a' + 'A'] = c;
  for (char c : {'+', '/', '=', '<', '>', '%', '^', '&', '$'}) table[c] = c;
  return table;
}();
constexpr bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter_or_digit(unsigned char c) { return is_digit(c) || (c >= 'a' && c <= 'z'); }

/// Simple case folding of the scripts that have case and are in common use (Unicode's CaseFolding.txt, status C and S).
uint32_t fold(uint32_t c) {
  if (c < 0x100) return c >= 0xc0 && c <= 0xde && c != 0xd7 ? c + 0x20 : c;
  if (c < 0x180) {  // Latin Extended-A: pairs, in two runs that begin odd
    const bool odd_first = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e);
    if (c == 0x130 || c == 0x138 || c == 0x149 || c == 0x17f) return c;
    if (c == 0x178) return 0xff;
    return odd_first ? c + (c & 1) : c | 1;
  }
  if (c >= 0x391 && c <= 0x3ab && c != 0x3a2) return c + 0x20;  // Greek
  if (c == 0x3c2) return 0x3c3;                                 // final sigma
  if (c == 0x386) return 0x3ac;
  if (c >= 0x388 && c <= 0x38a) return c + 37;
  if (c == 0x38c) return 0x3cc;
  if (c == 0x38e || c == 0x38f) return c + 63;
  if (c >= 0x400 && c <= 0x40f) return c + 80;  // Cyrillic
  if (c >= 0x410 && c <= 0x42f) return c + 32;
  if (c >= 0x460 && c <= 0x481) return c | 1;
  if (c >= 0x48a && c <= 0x4bf) return c | 1;
  if (c >= 0x4d0 && c <= 0x52f) return c | 1;
  if (c >= 0x531 && c <= 0x556) return c + 48;    // Armenian
  if (c >= 0x1e00 && c <= 0x1e95) return c | 1;   // Latin Extended Additional
  if (c >= 0x1ea0 && c <= 0x1eff) return c | 1;   // Vietnamese
  if (c >= 0xff21 && c <= 0xff3a) return c + 32;  // full-width Latin
  return c;
}

struct Range {
  uint32_t first, last;
  Class kind;
};
/// Blocks above ASCII that are not letters (Unicode 15.0). What is not listed is taken for letters.
constexpr Range ranges[] = {
    {0x80, 0xa9, separator},       {0xab, 0xb1, separator},     {0xb4, 0xb4, separator},
    {0xb6, 0xb8, separator},       {0xbb, 0xbb, separator},     {0xbf, 0xbf, separator},
    {0xd7, 0xd7, alone},           {0xf7, 0xf7, alone},         {0x37e, 0x37e, separator},
    {0x387, 0x387, separator},     {0x55a, 0x55f, separator},   {0x589, 0x58a, separator},
    {0x5be, 0x5be, separator},     {0x5c0, 0x5c0, separator},   {0x5c3, 0x5c3, separator},
    {0x5f3, 0x5f4, separator},     {0x60c, 0x60d, separator},   {0x61b, 0x61f, separator},
    {0x66a, 0x66d, separator},     {0x6d4, 0x6d4, separator},   {0x964, 0x965, separator},
    {0xe01, 0xe7f, alone},         {0xe80, 0xeff, alone},       {0x1000, 0x109f, alone},
    {0x1680, 0x1680, separator},   {0x1780, 0x17d3, alone},     {0x2000, 0x206f, separator},
    {0x2190, 0x21ff, separator},   {0x2200, 0x22ff, alone},     {0x2300, 0x2bff, separator},
    {0x2e00, 0x2e7f, separator},   {0x2e80, 0x2fdf, alone},     {0x3000, 0x3004, separator},
    {0x3005, 0x3007, alone},       {0x3008, 0x3020, separator}, {0x3030, 0x3030, separator},
    {0x303d, 0x303f, separator},   {0x3041, 0x30fa, alone},     {0x30fb, 0x30fb, separator},
    {0x30fc, 0x312f, alone},       {0x3190, 0xa4cf, alone},     {0xe000, 0xf8ff, separator},
    {0xf900, 0xfaff, alone},       {0xfe10, 0xfe1f, separator}, {0xfe30, 0xfe6f, separator},
    {0xff01, 0xff0f, separator},   {0xff1a, 0xff20, separator}, {0xff3b, 0xff40, separator},
    {0xff5b, 0xff65, separator},   {0xff66, 0xff9f, alone},     {0xffe0, 0xffff, separator},
    {0x1f000, 0x1faff, separator}, {0x20000, 0x3ffff, alone},   {0xe0000, 0xe01ef, separator},
};

Class class_of(uint32_t c) {
  const Range* found = std::lower_bound(std::begin(ranges), std::end(ranges), c,
                                        [](const Range& range, uint32_t value) { return range.last < value; });
  return found != std::end(ranges) && found->first <= c ? found->kind : letter;
}

/// The code point at `text[at]` and its length; length 0 when the bytes there are no UTF-8.
struct Decoded {
  uint32_t code = 0;
  size_t length = 0;
};
Decoded decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t first = byte(0);
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() - at < length) return {};
  uint32_t code = first & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3f);
  }
  if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff))) return {};
  return {code, length};
}

/// A word being read, folded, as UTF-8.
class Word {
 public:
  explicit Word(std::vector<uint64_t>& hashes) : hashes_(hashes) {}
  void add(char c) {
    if (size_ == bytes_.size()) finish();  // a run of letters without end is cut into pieces
    bytes_[size_++] = c;
  }
  void add_code(uint32_t c) {
    if (c >= 0x10000) add(static_cast<char>(0xf0 | c >> 18));
    if (c >= 0x800) add(static_cast<char>(c >= 0x10000 ? (0x80 | (c >> 12 & 0x3f)) : (0xe0 | c >> 12)));
    add(static_cast<char>(c >= 0x800 ? (0x80 | (c >> 6 & 0x3f)) : (0xc0 | c >> 6)));
    add(static_cast<char>(0x80 | (c & 0x3f)));
  }
  void finish() {
    if (size_ > 0) hashes_.push_back(XXH3_64bits(bytes_.data(), size_));
    size_ = 0;
  }

 private:
  std::vector<uint64_t>& hashes_;
  std::array<char, 256> bytes_;
  size_t size_ = 0;
};

}  // namespace

void Words::add(std::string_view text) {
  Word word(hashes);
  if (hashes.empty()) hashes.reserve(text.size() / 5);  // few languages have shorter words, spaces included
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte < 0x80) {
      const uint8_t folded = ascii[byte];
      if (is_letter_or_digit(folded)) {
        word.add(static_cast<char>(folded));
      } else {
        word.finish();
        // A minus before a digit belongs to a formula, other hyphens to spelling.
        const bool minus = byte == '-' && i + 1 < text.size() && is_digit(static_cast<uint8_t>(text[i + 1]));
        if (folded || minus) word.add(static_cast<char>(byte)), word.finish();
      }
      ++i;
      continue;
    }
    const Decoded decoded = decode(text, i);
    const Class kind = decoded.length ? class_of(decoded.code) : separator;
    if (kind != letter) word.finish();
    if (kind != separator) word.add_code(fold(decoded.code));
    if (kind == alone) word.finish();
    i += std::max<size_t>(decoded.length, 1);
  }
  word.finish();
}

bool has_letter(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte < 0x80) {
      if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z') return true;
      ++i;
      continue;
    }
    const Decoded decoded = decode(text, i);
    const bool symbol =
        decoded.code == 0xd7 || decoded.code == 0xf7 || (decoded.code >= 0x2200 && decoded.code < 0x2300);
    if (decoded.length && !symbol && class_of(decoded.code) != separator) return true;
    i += std::max<size_t>(decoded.length, 1);
  }
  return false;
}

std::vector<uint64_t> word_grams(const Words& words, size_t n) {
  std::vector<uint64_t> grams;
  if (n > 0 && words.hashes.size() >= n) grams.reserve(words.hashes.size() - n + 1);
  each_word_gram(words, n, [&](uint64_t gram) { grams.push_back(gram); });
  return grams;
}

uint64_t hash_of(const Words& words) {
  return XXH3_64bits(words.hashes.data(), words.hashes.size() * sizeof(uint64_t));
}

}  // namespace retort
