// Places in a text that a rule found, when several rules may have found the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <vector>

namespace retort {

struct FoundSpan {
  size_t rule;        ///< a number whose meaning is the finder's
  size_t begin, end;  ///< bytes of the text
};

/// Of `spans`, the most wanted first, those that overlap none before them, in the order of the text.
inline std::vector<FoundSpan> keep_apart(const std::vector<FoundSpan>& spans) {
  std::map<size_t, FoundSpan> kept;  // by where they end
  for (const FoundSpan& span : spans) {
    auto next = kept.upper_bound(span.begin);
    if (next == kept.end() || next->second.begin >= span.end) kept.emplace(span.end, span);
  }
  std::vector<FoundSpan> result;
  for (const auto& [end, span] : kept) result.push_back(span);
  return result;
}

}  // namespace retort
