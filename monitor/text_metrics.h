// Figures of one generated text, alone or beside the expected one. No model is asked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace retort {

/// What is made alike in two texts before they are compared, in this order.
struct TextNormalization {
  bool lower_case = false;
  bool no_punctuation = false;  ///< the 32 of ASCII (Python's string.punctuation)
  bool no_numbers = false;      ///< the ten ASCII digits
  bool no_articles = false;     ///< the words a, an, the become a space
  bool one_spaced = false;      ///< runs of white space become a space, none at the ends
};
/// SQuAD's normalize_answer.
inline constexpr TextNormalization kSquadNormalization{true, true, false, true, true};

std::string normalized(std::string_view text, const TextNormalization& how);

/// F1 over the multisets of words of both texts after kSquadNormalization, as SQuAD's compute_f1: when one text has no
/// word, 1 if both have none, else 0.
double token_f1(std::string_view answer, std::string_view expected);

/// F measure of the longest common subsequence of words, as google's rouge_score computes rougeL without a stemmer:
/// words are runs of a-z and 0-9 after lower-casing; other scripts have no words there. 0 without a common word.
double rouge_l(std::string_view answer, std::string_view expected);

/// n-grams of words (white space between) of a text.
struct NgramCounts {
  int64_t total = 0, distinct = 0;
};
NgramCounts ngrams_of_words(std::string_view text, size_t n);

/// The phrases that is_refusal() looks for, in lower case with straight apostrophes.
const std::vector<std::string_view>& refusal_phrases();
/// Whether one of refusal_phrases() stands in the first 200 characters. English only, and of wording alone: it knows
/// neither a refusal in other words nor that a phrase is quoted.
bool is_refusal(std::string_view text);

}  // namespace retort
