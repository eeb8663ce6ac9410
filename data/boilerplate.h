// What most rows have in common, an instruction's template for instance: it says nothing about one of them.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_set>

#include "data/example.h"

namespace retort {

/// Hashes of word n-grams.
using Boilerplate = std::unordered_set<uint64_t>;

/// The n-grams (word_grams) that a fifth of the first 1,000 different rows have, and at least 20 of them.
Boilerplate boilerplate_of(std::span<const Chat> rows, size_t words);

}  // namespace retort
