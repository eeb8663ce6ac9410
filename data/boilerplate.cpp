#include "data/boilerplate.h"

#include <algorithm>
#include <unordered_map>

#include "data/guard.h"
#include "data/words.h"

namespace retort {

Boilerplate boilerplate_of(std::span<const Chat> rows, size_t words) {
  constexpr size_t most_rows = 1000, fewest_rows = 20, one_in = 5;
  std::unordered_set<uint64_t> seen;  // a row that stands there a hundred times is a duplicate, not a template
  std::unordered_map<uint64_t, size_t> counts;
  for (const Chat& chat : rows) {
    if (seen.size() == most_rows) break;
    const GuardRow row(chat);
    if (!seen.insert(hash_of(row.words())).second) continue;
    std::vector<uint64_t> grams = word_grams(row.words(), words);
    std::sort(grams.begin(), grams.end());
    grams.erase(std::unique(grams.begin(), grams.end()), grams.end());
    for (uint64_t gram : grams) ++counts[gram];
  }
  Boilerplate common;
  for (const auto& [gram, count] : counts)
    if (count >= fewest_rows && count * one_in >= seen.size()) common.insert(gram);
  return common;
}

}  // namespace retort
