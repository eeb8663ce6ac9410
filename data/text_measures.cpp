#include "data/text_measures.h"

#define XXH_INLINE_ALL  // words are short: the call would cost as much as the hash
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "core/simd.h"
#include "data/words.h"

namespace retort {
namespace {

enum Measure {
  min_words,
  max_words,
  min_word_length,
  max_word_length,
  hashes,
  ellipses,
  bullet_lines,
  ellipsis_lines,
  alphabetic_words,
  stop_words,
  duplicate_lines,
  duplicate_line_chars,
  duplicate_paragraphs,
  duplicate_paragraph_chars,
  top_2_gram,
  top_3_gram,
  top_4_gram,
  duplicate_5_gram,
  duplicate_10_gram = duplicate_5_gram + 5,
  sentences,
  curly_brackets,
  lorem_ipsum,
  javascript,
  policy,
  longest_word,
  punctuated_lines,
  short_lines,
  duplicate_chars,
  newlines,
  measures
};

constexpr TextRule rules[] = {
    {"gopher_min_words", "words with a letter or digit", 50, false},
    {"gopher_max_words", "words with a letter or digit", 100000, true},
    {"gopher_min_word_length", "mean length of a word", 3, false},
    {"gopher_max_word_length", "mean length of a word", 10, true},
    {"gopher_hashes", "# signs a word", 0.1, true},
    {"gopher_ellipses", "ellipses a word", 0.1, true},
    {"gopher_bullet_lines", "share of lines that begin with a bullet", 0.9, true},
    {"gopher_ellipsis_lines", "share of lines that end with an ellipsis", 0.3, true},
    {"gopher_alphabetic_words", "share of words with a letter", 0.8, false},
    {"gopher_stop_words", "how many of: the be to of and that have with", 2, false},
    {"gopher_duplicate_lines", "share of lines that are repeated", 0.3, true},
    {"gopher_duplicate_line_chars", "share of the text in repeated lines", 0.2, true},
    {"gopher_duplicate_paragraphs", "share of paragraphs that are repeated", 0.3, true},
    {"gopher_duplicate_paragraph_chars", "share of the text in repeated paragraphs", 0.2, true},
    {"gopher_top_2_gram", "share of the text in its most frequent 2-gram of words", 0.20, true},
    {"gopher_top_3_gram", "share of the text in its most frequent 3-gram of words", 0.18, true},
    {"gopher_top_4_gram", "share of the text in its most frequent 4-gram of words", 0.16, true},
    {"gopher_duplicate_5_gram", "share of the text in repeated 5-grams of words", 0.15, true},
    {"gopher_duplicate_6_gram", "share of the text in repeated 6-grams of words", 0.14, true},
    {"gopher_duplicate_7_gram", "share of the text in repeated 7-grams of words", 0.13, true},
    {"gopher_duplicate_8_gram", "share of the text in repeated 8-grams of words", 0.12, true},
    {"gopher_duplicate_9_gram", "share of the text in repeated 9-grams of words", 0.11, true},
    {"gopher_duplicate_10_gram", "share of the text in repeated 10-grams of words", 0.10, true},
    {"c4_sentences", "sentences in lines of three words or more that end as sentences do", 5, false},
    {"c4_curly_bracket", "{ signs", 0, true},
    {"c4_lorem_ipsum", "mentions of lorem ipsum", 0, true},
    {"c4_javascript", "lines that mention JavaScript", 0, true},
    {"c4_policy", "lines about cookies, privacy policies or terms of use", 0, true},
    {"c4_long_word", "length of the longest word", 1000, true},
    {"fineweb_punctuation", "share of lines that end with terminal punctuation", 0.12, false},
    {"fineweb_short_lines", "share of lines of at most 30 characters", 0.67, true},
    {"fineweb_duplicate_chars", "share of the text in repeated lines", 0.01, true},
    {"fineweb_newlines", "line ends a word", 0.3, true},
};
static_assert(std::size(rules) == measures);

using Views = std::vector<std::string_view>;

/// What a byte can be in a word.
enum Kind : uint8_t { space = 1, digit = 2, letter = 4, beyond_ascii = 8 };
constexpr std::array<uint8_t, 256> kinds = [] {
  std::array<uint8_t, 256> table{};
  for (int c = 0; c < 256; ++c) {
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f)) table[c] = space;
    if (c >= '0' && c <= '9') table[c] = digit;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) table[c] = letter;
    if (c >= 0x80) table[c] = beyond_ascii;
  }
  return table;
}();
uint8_t kind_of(char c) { return kinds[static_cast<uint8_t>(c)]; }
bool is_space(char c) { return kind_of(c) == space; }

RETORT_SIMD size_t characters(const char* text, size_t bytes) {
  size_t count = 0;
  for (size_t i = 0; i < bytes; ++i) count += (text[i] & 0xc0) != 0x80;
  return count;
}
RETORT_SIMD size_t count_of(char wanted, const char* text, size_t bytes) {
  size_t count = 0;
  for (size_t i = 0; i < bytes; ++i) count += text[i] == wanted;
  return count;
}
RETORT_SIMD void to_lower_case(char* text, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(text[i] + (text[i] >= 'A' && text[i] <= 'Z' ? 32 : 0));
}

double length_of(std::string_view text) { return static_cast<double>(characters(text.data(), text.size())); }
double count_of(char wanted, std::string_view text) {
  return static_cast<double>(count_of(wanted, text.data(), text.size()));
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// The words of a text, split at white space, and what is counted of them. Kept from text to text: most are short, and
/// allocating would cost as much as counting.
struct Split {
  std::vector<uint64_t> hashes;
  std::vector<uint32_t> before;  ///< characters of the words before; one more than words
  double with_letter_or_digit = 0, chars_of_those = 0, with_letter = 0, longest = 0;
  unsigned stop_words = 0;  ///< a bit for each that is there

  size_t size() const { return hashes.size(); }
  double chars(size_t begin, size_t n) const { return before[begin + n] - before[begin]; }
  void read(std::string_view text);

 private:
  void add(std::string_view word, uint8_t kinds_in_it, uint32_t length);
};

void Split::read(std::string_view text) {
  hashes.clear();
  before.assign(1, 0);
  with_letter_or_digit = chars_of_those = with_letter = longest = 0;
  stop_words = 0;
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    const size_t begin = i;
    uint8_t seen = 0;
    uint32_t following = 0;  // bytes that begin no character
    for (uint8_t kind; i < text.size() && (kind = kind_of(text[i])) != space; ++i) {
      seen |= kind;
      following += (text[i] & 0xc0) == 0x80;
    }
    if (i > begin) add(text.substr(begin, i - begin), seen, static_cast<uint32_t>(i - begin) - following);
  }
}

void Split::add(std::string_view word, uint8_t kinds_in_it, uint32_t length) {
  static constexpr std::array<std::string_view, 8> known = {"the", "be", "to", "of", "and", "that", "have", "with"};
  hashes.push_back(XXH3_64bits(word.data(), word.size()));
  before.push_back(before.back() + length);
  const bool letters = (kinds_in_it & letter) || ((kinds_in_it & beyond_ascii) && has_letter(word));
  with_letter += letters;
  longest = std::max<double>(longest, length);
  if (letters || (kinds_in_it & digit)) ++with_letter_or_digit, chars_of_those += length;
  if (word.size() > 4) return;
  for (size_t i = 0; i < known.size(); ++i)
    if (word == known[i]) stop_words |= 1u << i;
}

bool has_three_words(std::string_view text) {
  int words = 0;
  bool space = true;
  for (char c : text) {
    words += space && !is_space(c);
    space = is_space(c);
    if (words == 3) return true;
  }
  return false;
}

/// Parts between runs of at least `ends` line ends.
void parts_of(std::string_view text, size_t ends, Views& parts) {
  parts.clear();
  for (size_t begin = 0, at = 0;;) {
    const size_t stop = std::min(text.find('\n', at), text.size());
    at = std::min(text.find_first_not_of('\n', stop), text.size());
    if (stop < text.size() && at - stop < ends) continue;
    parts.push_back(text.substr(begin, stop - begin));
    if (stop == text.size()) return;
    begin = at;
  }
}

bool ends_with_ellipsis(std::string_view line) { return line.ends_with("...") || line.ends_with("…"); }

bool ends_as_sentence(std::string_view line) {
  constexpr std::string_view ends[] = {".", "?", "!", "。", "？", "！", "．", "⁇", "⁈",
                                       "⁉", "।", "॥", "؟",  "۔",  "‼",  "｡",  "։", "។"};
  return std::any_of(std::begin(ends), std::end(ends), [&](std::string_view end) { return line.ends_with(end); });
}

/// How often each of many 64-bit hashes was counted. Emptied by count_from(), at no cost.
class Counter {
 public:
  void count_from(size_t most) {
    size_t size = 64;
    while (size < most * 2) size *= 2;
    const bool wasteful = slots_.size() > kept_slots && slots_.size() > size;
    if (slots_.size() < size || wasteful || ++round_ == 0)
      slots_ = std::vector<Slot>(std::max(size, kept_slots)), round_ = 1;
    mask_ = size - 1;
  }
  /// The count of `hash` with this one.
  uint32_t add(uint64_t hash) {
    Slot& slot = slots_[slot_of(hash)];
    if (slot.round != round_) slot = {hash, round_, 0};
    return ++slot.count;
  }
  uint32_t count(uint64_t hash) const {
    const Slot& slot = slots_[slot_of(hash)];
    return slot.round == round_ ? slot.count : 0;
  }

 private:
  static constexpr size_t kept_slots = 1 << 16;  // between texts; a larger table is given back after the next one
  struct Slot {
    uint64_t hash;
    uint32_t round, count;  ///< a slot of another round is empty
  };
  size_t slot_of(uint64_t hash) const {
    size_t slot = hash & mask_;
    while (slots_[slot].round == round_ && slots_[slot].hash != hash) slot = (slot + 1) & mask_;
    return slot;
  }
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  uint32_t round_ = 0;
};

/// Number and characters of the parts that stood there before.
std::pair<double, double> repeated(const Views& parts, Counter& counter) {
  double count = 0, chars = 0;
  if (parts.size() < 2) return {0, 0};
  counter.count_from(parts.size());
  for (std::string_view part : parts) {
    if (counter.add(XXH3_64bits(part.data(), part.size())) == 1) continue;
    ++count;
    chars += length_of(part);
  }
  return {count, chars};
}

/// The n-grams of words that stand in a text more than once, for n = 1, 2, 3 … An n-gram that is repeated consists of
/// two repeated (n - 1)-grams, so that few places are left to look at.
class RepeatedGrams {
 public:
  /// From the words.
  void begin(const Split& split) {
    split_ = &split;
    n_ = 1;
    grams_.assign(split.hashes.begin(), split.hashes.end());
    places_.resize(split.size());
    for (size_t i = 0; i < places_.size(); ++i) places_[i] = static_cast<uint32_t>(i);
    keep_repeated();
  }
  /// From n - 1 to n words. False when none is there twice.
  bool next() {
    size_t kept = 0;
    for (size_t k = 0; k + 1 < places_.size(); ++k)
      if (places_[k + 1] == places_[k] + 1) places_[kept++] = places_[k];
    places_.resize(kept);
    for (const uint32_t at : places_) grams_[at] = mixed(grams_[at]) + split_->hashes[at + n_];
    ++n_;
    keep_repeated();
    return !places_.empty();
  }
  /// Characters of the most frequent one, spaces included, times how often it is there. Of several that are as frequent
  /// the first counts.
  double top_chars() const {
    uint32_t most = 0;
    size_t top = 0;
    for (const uint32_t at : places_)
      if (const uint32_t count = counter_.count(grams_[at]); count > most) most = count, top = at;
    return (split_->chars(top, n_) + static_cast<double>(n_ - 1)) * most;
  }
  /// Characters in those that stood there before; a repeated one is stepped over whole.
  double duplicate_chars() {
    seen_.count_from(places_.size());
    double chars = 0;
    size_t free_from = 0;
    for (const uint32_t at : places_) {
      if (at < free_from || seen_.add(grams_[at]) == 1) continue;
      chars += split_->chars(at, n_);
      free_from = at + n_;
    }
    return chars;
  }

 private:
  void keep_repeated() {
    counter_.count_from(places_.size());
    for (const uint32_t at : places_) counter_.add(grams_[at]);
    std::erase_if(places_, [&](uint32_t at) { return counter_.count(grams_[at]) == 1; });
  }

  const Split* split_ = nullptr;
  size_t n_ = 1;
  std::vector<uint64_t> grams_;   ///< by place: the hash of the n-gram there, where it may be repeated
  std::vector<uint32_t> places_;  ///< where a repeated one begins
  Counter counter_, seen_;
};

/// What is kept from text to text.
struct Scratch {
  Split split;
  RepeatedGrams grams;
  Counter counter;
  Views lines, parts;
  std::string lower;
};

void measure_repetition(std::string_view text, double length, Scratch& scratch, std::vector<double>& values) {
  const std::string_view bare = stripped(text);
  parts_of(bare, 1, scratch.parts);
  const auto lines = static_cast<double>(scratch.parts.size());
  const auto [repeated_lines, line_chars] = repeated(scratch.parts, scratch.counter);
  values[duplicate_lines] = repeated_lines / lines;
  values[duplicate_line_chars] = line_chars / length;
  parts_of(bare, 2, scratch.parts);
  const auto [repeated_paragraphs, paragraph_chars] = repeated(scratch.parts, scratch.counter);
  values[duplicate_paragraphs] = repeated_paragraphs / static_cast<double>(scratch.parts.size());
  values[duplicate_paragraph_chars] = paragraph_chars / length;

  RepeatedGrams& grams = scratch.grams;
  grams.begin(scratch.split);
  for (size_t n = 2; n <= 10 && grams.next(); ++n) {
    if (n <= 4)
      values[top_2_gram + n - 2] = grams.top_chars() / length;
    else
      values[duplicate_5_gram + n - 5] = grams.duplicate_chars() / length;
  }
}

void measure_words(const Split& split, std::vector<double>& values) {
  const double count = split.with_letter_or_digit;
  values[min_words] = values[max_words] = count;
  values[min_word_length] = values[max_word_length] = count == 0 ? 0 : split.chars_of_those / count;
  values[alphabetic_words] = split.with_letter / static_cast<double>(split.size());
  values[stop_words] = __builtin_popcount(split.stop_words);
  values[longest_word] = split.longest;
}

bool contains(std::string_view text, std::string_view needle) {
  return memmem(text.data(), text.size(), needle.data(), needle.size()) != nullptr;
}

/// How often `needle` is in the text, without overlaps.
double mentions(std::string_view text, std::string_view needle) {
  double count = 0;
  while (const void* found = memmem(text.data(), text.size(), needle.data(), needle.size())) {
    ++count;
    text.remove_prefix(static_cast<size_t>(static_cast<const char*>(found) - text.data()) + needle.size());
  }
  return count;
}

bool about_policies(std::string_view lower) {
  if (contains(lower, "terms of use") || contains(lower, "privacy policy")) return true;
  constexpr std::string_view phrases[] = {"cookie policy", "uses cookies", "use of cookies", "use cookies"};
  return contains(lower, "cookie") &&
         std::any_of(std::begin(phrases), std::end(phrases), [&](std::string_view p) { return contains(lower, p); });
}

/// Runs of . ! ? with the quotes and brackets behind them, before white space or the end.
double sentences_in(std::string_view line) {
  double count = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '.' && line[i] != '!' && line[i] != '?') continue;
    while (i + 1 < line.size() && std::string_view(".!?\"')]").find(line[i + 1]) != std::string_view::npos) ++i;
    count += i + 1 == line.size() || is_space(line[i + 1]);
  }
  return std::max(count, 1.0);
}

void measure_lines(std::string_view text, double length, Scratch& scratch, std::vector<double>& values) {
  const std::string_view lower = scratch.lower;
  const bool any_script = contains(lower, "javascript"), any_policy = about_policies(lower);
  Views& filled = scratch.lines;
  filled.clear();
  double lines = 0, bullets = 0, ellipsis = 0, punctuated = 0, brief = 0, line_ends = 0;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin), bare = stripped(line);
    const std::string_view lower_line = lower.substr(begin, end - begin);
    line_ends += end < text.size();
    begin = end + 1;
    if (end == text.size() && line.empty()) break;
    ++lines;
    bullets += bare.starts_with("•") || bare.starts_with("-");
    ellipsis += ends_with_ellipsis(bare);
    if (bare.empty()) continue;
    filled.push_back(line);
    punctuated += ends_as_sentence(line);
    brief += length_of(line) <= 30;
    const bool scripted = any_script && contains(lower_line, "javascript"),
               legal = any_policy && about_policies(lower_line);
    values[javascript] += scripted;
    values[policy] += legal;
    const bool ends = bare.ends_with('.') || bare.ends_with('?') || bare.ends_with('!') || bare.ends_with('"') ||
                      bare.ends_with('\'');
    if (ends && !bare.ends_with("...") && !scripted && !legal && has_three_words(bare))
      values[sentences] += sentences_in(bare);
  }
  values[bullet_lines] = bullets / lines;
  values[ellipsis_lines] = ellipsis / lines;
  values[punctuated_lines] = punctuated / static_cast<double>(filled.size());
  values[short_lines] = brief / static_cast<double>(filled.size());
  values[newlines] = line_ends / static_cast<double>(scratch.split.size());
  values[duplicate_chars] = repeated(filled, scratch.counter).second / (length - line_ends);
}

}  // namespace

std::span<const TextRule> text_rules() { return rules; }

std::vector<double> text_measures(std::string_view text) {
  thread_local Scratch scratch;
  scratch.split.read(text);
  if (scratch.split.size() == 0) return {};
  std::vector<double> values(measures, 0.0);
  const auto count = static_cast<double>(scratch.split.size());
  const double length = length_of(text);
  measure_words(scratch.split, values);
  scratch.lower = text;
  to_lower_case(scratch.lower.data(), scratch.lower.size());
  values[hashes] = count_of('#', text) / count;
  values[ellipses] = (mentions(text, "...") + mentions(text, "…")) / count;
  values[curly_brackets] = count_of('{', text);
  values[lorem_ipsum] = mentions(scratch.lower, "lorem ipsum");
  measure_lines(text, length, scratch, values);
  measure_repetition(text, length, scratch, values);
  return values;
}

}  // namespace retort
