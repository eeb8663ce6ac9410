// How several documents go through llama.cpp together: those that begin alike are computed once up to where they part.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "models/served.h"

namespace retort {

/// New tokens of one pass. More would let every token's attention look at more cells of other documents.
constexpr int64_t kPassTokens = 512;
/// Sequences of one pass, besides the one that holds the common beginning. llama.cpp allows 256.
constexpr int kPassDocuments = 127;

/// A token that one or more documents of a pass have at this place after the same beginning.
struct PassNode {
  int32_t token;
  int64_t position;
  bool output = false;
  std::vector<int32_t> sequences;
  std::map<int32_t, size_t> next;  ///< token -> node
};

/// The documents [first, last) of a run as one tree, in an order in which every token follows its beginning.
struct SharedPass {
  size_t first = 0, last = 0;
  std::vector<PassNode> nodes;
  std::vector<std::vector<size_t>> paths;  ///< of each document: its nodes from the end of the shared beginning on
  int64_t generated = 0;                   ///< room that its continuations may need
};

/// Tokens that all documents begin with, before the first position that anyone wants to see.
int64_t shared_beginning(std::span<const ServedRequest> requests);

/// As many documents from `first` on as a pass holds, at least one; `shared` tokens of each are there already. Without
/// `shares`, for models whose state belongs to one sequence, a pass is one document.
SharedPass plan_pass(std::span<const ServedRequest> requests, size_t first, int64_t shared, bool shares);

}  // namespace retort
