#include "data/boilerplate.h"

#include <algorithm>

#include "data/guard.h"

namespace retort {

FirstRows::FirstRows(std::span<const Chat> rows) {
  constexpr size_t most_rows = 1000;
  std::unordered_set<uint64_t> seen;
  for (const Chat& chat : rows) {
    if (rows_.size() == most_rows) break;
    const GuardRow row(chat);
    if (seen.insert(hash_of(row.words())).second) rows_.push_back(row.words());
  }
}

std::shared_ptr<const Boilerplate> FirstRows::boilerplate(size_t words) {
  constexpr size_t fewest_rows = 20, one_in = 5;
  std::shared_ptr<const Boilerplate>& made = made_[words];
  if (made) return made;
  std::vector<uint64_t> all;  // of each row, every n-gram once
  for (const Words& row : rows_) {
    std::vector<uint64_t> grams = word_grams(row, words);
    std::sort(grams.begin(), grams.end());
    all.insert(all.end(), grams.begin(), std::unique(grams.begin(), grams.end()));
  }
  std::sort(all.begin(), all.end());
  Boilerplate common;
  for (auto first = all.begin(); first != all.end();) {
    const auto next = std::find_if(first, all.end(), [&](uint64_t gram) { return gram != *first; });
    const auto count = static_cast<size_t>(next - first);
    if (count >= fewest_rows && count * one_in >= rows_.size()) common.insert(*first);
    first = next;
  }
  return made = std::make_shared<const Boilerplate>(std::move(common));
}

}  // namespace retort
