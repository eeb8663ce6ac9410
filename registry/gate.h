// The promotion gate: whether a challenger may replace the champion, from what both did on the same held-out rows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"

namespace retort {

/// Some of the rows, judged for themselves too.
struct PromotionSlice {
  std::string name;
  std::vector<size_t> rows;  ///< indices into the outcomes
};

/// A figure of the challenger that must hold with confidence 1 - alpha.
struct PromotionFloor {
  std::string name;
  std::optional<double> at_least, at_most;
  /// 0 to 1 a row: Clopper and Pearson's bound where all are 0 or 1, else Gaffke's. Empty: Student's bound of `value`
  /// and `standard_error` over `n` rows, and none where that is 0.
  std::vector<double> outcomes = {};
  double value = 0, standard_error = 0;
  int64_t n = 0;
  bool exact = false;  ///< the value has no error, as a list price has none
};

/// A figure that is known without error: bytes of the file, seconds to the first token.
struct PromotionLimit {
  std::string name;
  double value = 0;
  std::optional<double> at_least = {}, at_most = {};
};

/// What the gate is given. Outcomes of the same rows in the same order; larger is better. All 0 or 1, or scores.
struct PromotionCase {
  std::vector<double> champion, challenger;
  /// The largest difference that two outcomes can have; nothing: unknown. With it the gate counts on a row as bad as
  /// can be among those that it did not see, without it only on one as bad as the worst that it saw.
  std::optional<double> range = {};
  /// There is none to be worse than: floors and limits alone decide, and there are no outcomes of rows.
  bool without_champion = false;
  std::vector<PromotionSlice> slices = {};
  std::vector<PromotionFloor> floors = {};
  std::vector<PromotionLimit> limits = {};
};

struct PromotionRule {
  double margin = 0.02;  ///< a mean lower by less than this counts as no worse
  double alpha = 0.05;   ///< of each one-sided test
  double power = 0.8;    ///< with which "N more rows" would decide
  int64_t min_slice_rows = 30;
  int64_t min_score_rows =
      50;  ///< fewer scores, of all rows or a slice, show nothing; outcomes of 0 or 1 need no least
  int64_t resamples = 10'000;
  uint64_t seed = 1;
};

enum class PromotionDecision { promote, reject, inconclusive };
const char* name_of(PromotionDecision decision);

struct PromotionVerdict {
  PromotionDecision decision = PromotionDecision::inconclusive;
  std::vector<std::string> reasons;  ///< sentences for people, the decisive ones first
  /// Of an inconclusive verdict: rows that are missing for rule.power; nothing when no number of rows like these would
  /// decide, or when what is missing is not rows.
  std::optional<int64_t> more_rows;
  Json evidence;  ///< every figure that the verdict rests on
};

/// promote: no worse than by the margin is shown, every floor is shown, every limit is kept. reject: worse by more than
/// the margin is shown of all rows or, after Holm over slices, of one slice; a floor is shown to be missed; or a limit
/// is exceeded. Else inconclusive. "Shown" of outcomes 0 or 1: by the exact test; of scores: by the BCa bootstrap and
/// by Gaffke's bound, both. Error(bad_input) for outcomes that do not pair, are not finite or differ by more than the
/// range, a slice's row that does not exist; Error(usage) for a rule out of range.
PromotionVerdict judge_promotion(const PromotionCase& given, const PromotionRule& rule = {});

}  // namespace retort
