#include "data/text_measures.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "core/hash.h"
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

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f); }

double length_of(std::string_view text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

Views words_of(std::string_view text) {
  Views words;
  for (size_t i = 0; i < text.size();) {
    while (i < text.size() && is_space(text[i])) ++i;
    const size_t begin = i;
    while (i < text.size() && !is_space(text[i])) ++i;
    if (i > begin) words.push_back(text.substr(begin, i - begin));
  }
  return words;
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
Views parts_of(std::string_view text, size_t ends) {
  Views parts;
  for (size_t begin = 0, at = 0;;) {
    const size_t stop = std::min(text.find('\n', at), text.size());
    at = std::min(text.find_first_not_of('\n', stop), text.size());
    if (stop < text.size() && at - stop < ends) continue;
    parts.push_back(text.substr(begin, stop - begin));
    if (stop == text.size()) return parts;
    begin = at;
  }
}

bool ends_with_ellipsis(std::string_view line) { return line.ends_with("...") || line.ends_with("…"); }

bool ends_as_sentence(std::string_view line) {
  constexpr std::string_view ends[] = {".", "?", "!", "。", "？", "！", "．", "⁇", "⁈",
                                       "⁉", "।", "॥", "؟",  "۔",  "‼",  "｡",  "։", "។"};
  return std::any_of(std::begin(ends), std::end(ends), [&](std::string_view end) { return line.ends_with(end); });
}

/// How often each of many 64-bit hashes was counted. Emptied by count_from().
class Counter {
 public:
  void count_from(size_t most) {
    size_t size = 64;
    while (size < most * 2) size *= 2;
    slots_.assign(size, {0, 0});
  }
  /// The count of `hash` with this one.
  uint32_t add(uint64_t hash) {
    auto& slot = slots_[slot_of(hash)];
    slot.first = hash;
    return ++slot.second;
  }
  uint32_t count(uint64_t hash) const { return slots_[slot_of(hash)].second; }

 private:
  size_t slot_of(uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = hash & mask;
    while (slots_[slot].second > 0 && slots_[slot].first != hash) slot = (slot + 1) & mask;
    return slot;
  }
  std::vector<std::pair<uint64_t, uint32_t>> slots_;
};

/// Number and characters of the parts that stood there before.
std::pair<double, double> repeated(const Views& parts, Counter& counter) {
  double count = 0, chars = 0;
  counter.count_from(parts.size());
  for (std::string_view part : parts) {
    if (counter.add(xxh3(part)) == 1) continue;
    ++count;
    chars += length_of(part);
  }
  return {count, chars};
}

/// Words with their lengths and hashes, for n-grams.
struct Lengths {
  Words words;
  std::vector<double> before;  ///< characters of the words before

  double chars(size_t begin, size_t n) const { return before[begin + n] - before[begin]; }
};

/// Characters of the most frequent n-gram, spaces included, times how often it is there; 0 when none is there twice. Of
/// several that are as frequent the first counts.
double top_gram_chars(const Lengths& lengths, size_t n, Counter& counter) {
  const std::vector<uint64_t> grams = word_grams(lengths.words, n);
  counter.count_from(grams.size());
  uint32_t most = 1;
  for (uint64_t gram : grams) most = std::max(most, counter.add(gram));
  if (most == 1) return 0;
  const auto top = std::find_if(grams.begin(), grams.end(), [&](uint64_t gram) { return counter.count(gram) == most; });
  const auto begin = static_cast<size_t>(top - grams.begin());
  return (lengths.chars(begin, n) + static_cast<double>(n - 1)) * most;
}

/// Characters in n-grams that stood there before; a repeated one is stepped over whole.
double duplicate_gram_chars(const Lengths& lengths, size_t n, Counter& counter) {
  const std::vector<uint64_t> grams = word_grams(lengths.words, n);
  counter.count_from(grams.size());
  double chars = 0;
  for (size_t i = 0; i < grams.size();) {
    if (counter.add(grams[i]) > 1) {
      chars += lengths.chars(i, n);
      i += n;
    } else {
      ++i;
    }
  }
  return chars;
}

void measure_repetition(std::string_view text, double length, const Views& words, std::vector<double>& values) {
  Counter counter;
  const Views paragraphs = parts_of(stripped(text), 2), lines = parts_of(stripped(text), 1);
  const auto [repeated_lines, line_chars] = repeated(lines, counter);
  values[duplicate_lines] = repeated_lines / static_cast<double>(lines.size());
  values[duplicate_line_chars] = line_chars / length;
  const auto [repeated_paragraphs, paragraph_chars] = repeated(paragraphs, counter);
  values[duplicate_paragraphs] = repeated_paragraphs / static_cast<double>(paragraphs.size());
  values[duplicate_paragraph_chars] = paragraph_chars / length;

  Lengths lengths;
  lengths.before.push_back(0);
  for (std::string_view word : words) {
    lengths.words.hashes.push_back(xxh3(word));
    lengths.before.push_back(lengths.before.back() + length_of(word));
  }
  // What is repeated in longer n-grams is repeated in shorter ones.
  for (size_t n = 2; n <= 4; ++n) {
    values[top_2_gram + n - 2] = top_gram_chars(lengths, n, counter) / length;
    if (values[top_2_gram + n - 2] == 0) return;
  }
  for (size_t n = 5; n <= 10; ++n) {
    values[duplicate_5_gram + n - 5] = duplicate_gram_chars(lengths, n, counter) / length;
    if (values[duplicate_5_gram + n - 5] == 0) return;
  }
}

void measure_words(const Views& words, std::vector<double>& values) {
  static constexpr std::array<std::string_view, 8> known = {"the", "be", "to", "of", "and", "that", "have", "with"};
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  double count = 0, chars = 0, alphabetic = 0, longest = 0;
  unsigned stops = 0;
  for (std::string_view word : words) {
    const bool letters = has_letter(word);
    const double length = length_of(word);
    alphabetic += letters;
    longest = std::max(longest, length);
    if (letters || std::any_of(word.begin(), word.end(), is_digit)) ++count, chars += length;
    if (word.size() <= 4)
      for (size_t i = 0; i < known.size(); ++i)
        if (word == known[i]) stops |= 1u << i;
  }
  values[min_words] = values[max_words] = count;
  values[min_word_length] = values[max_word_length] = count == 0 ? 0 : chars / count;
  values[alphabetic_words] = alphabetic / static_cast<double>(words.size());
  values[stop_words] = __builtin_popcount(stops);
  values[longest_word] = longest;
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return lower;
}

bool contains(std::string_view text, std::string_view needle) {
  return memmem(text.data(), text.size(), needle.data(), needle.size()) != nullptr;
}

/// How often `needle` is in the text, without overlaps.
double mentions(std::string_view text, std::string_view needle) {
  double count = 0;
  for (size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + needle.size())) ++count;
  return count;
}

bool about_policies(std::string_view lower) {
  constexpr std::string_view phrases[] = {"terms of use", "privacy policy", "cookie policy",
                                          "uses cookies", "use of cookies", "use cookies"};
  return std::any_of(std::begin(phrases), std::end(phrases), [&](std::string_view p) { return contains(lower, p); });
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

/// `lower` is the text in lower case.
void measure_lines(std::string_view text, std::string_view lower, double word_count, std::vector<double>& values) {
  const bool any_script = contains(lower, "javascript"), any_policy = about_policies(lower);
  Views filled;
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
  values[newlines] = line_ends / word_count;
  Counter counter;
  values[duplicate_chars] = repeated(filled, counter).second / (length_of(text) - line_ends);
}

}  // namespace

std::span<const TextRule> text_rules() { return rules; }

std::vector<double> text_measures(std::string_view text) {
  const Views words = words_of(text);
  if (words.empty()) return {};
  std::vector<double> values(measures, 0.0);
  const auto count = static_cast<double>(words.size());
  measure_words(words, values);
  const std::string lower = lower_case(text);
  values[hashes] = static_cast<double>(std::count(text.begin(), text.end(), '#')) / count;
  values[ellipses] = (mentions(text, "...") + mentions(text, "…")) / count;
  values[curly_brackets] = static_cast<double>(std::count(text.begin(), text.end(), '{'));
  values[lorem_ipsum] = contains(lower, "lorem ipsum") ? mentions(lower, "lorem ipsum") : 0;
  measure_lines(text, lower, count, values);
  measure_repetition(text, length_of(text), words, values);
  return values;
}

}  // namespace retort
