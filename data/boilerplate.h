// What most rows have in common, an instruction's template for instance: it says nothing about one of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_set>
#include <vector>

#include "data/example.h"
#include "data/words.h"

namespace retort {

/// Hashes of word n-grams.
using Boilerplate = std::unordered_set<uint64_t>;

/// The boilerplate of some rows, for n-grams of several lengths. Not for several threads at once.
class FirstRows {
 public:
  /// The first 1,000 different rows count: one that stands there a hundred times is a duplicate, not a template.
  explicit FirstRows(std::span<const Chat> rows);
  /// The n-grams (word_grams) that a fifth of them have, and at least 20. Made once for each n.
  std::shared_ptr<const Boilerplate> boilerplate(size_t words);

 private:
  std::vector<Words> rows_;
  std::map<size_t, std::shared_ptr<const Boilerplate>> made_;
};

}  // namespace retort
