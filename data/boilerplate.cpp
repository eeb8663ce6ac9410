#include "data/boilerplate.h"

#include <algorithm>
#include <vector>

#include "data/guard.h"
#include "data/words.h"

namespace retort {

Boilerplate boilerplate_of(std::span<const Chat> rows, size_t words) {
  constexpr size_t most_rows = 1000, fewest_rows = 20, one_in = 5;
  std::unordered_set<uint64_t> seen;  // a row that stands there a hundred times is a duplicate, not a template
  std::vector<uint64_t> all;          // of each row, every n-gram once
  for (const Chat& chat : rows) {
    if (seen.size() == most_rows) break;
    const GuardRow row(chat);
    if (!seen.insert(hash_of(row.words())).second) continue;
    std::vector<uint64_t> grams = word_grams(row.words(), words);
    std::sort(grams.begin(), grams.end());
    all.insert(all.end(), grams.begin(), std::unique(grams.begin(), grams.end()));
  }
  std::sort(all.begin(), all.end());
  Boilerplate common;
  for (auto first = all.begin(); first != all.end();) {
    const auto next = std::find_if(first, all.end(), [&](uint64_t gram) { return gram != *first; });
    const auto count = static_cast<size_t>(next - first);
    if (count >= fewest_rows && count * one_in >= seen.size()) common.insert(*first);
    first = next;
  }
  return common;
}

}  // namespace retort
