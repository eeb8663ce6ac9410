// Whole documents into windows of a fixed number of tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "data/example.h"

namespace retort {

/// Best fit over a bounded pool: rows are collected until the pool is full, then taken in a random order that is always
/// the same, each into the fullest window that still has room. Longest first would fill the windows better, but put
/// rows of like length, and so of like kind, into the same steps; and a window that is not full costs nothing, as
/// nothing is padded. Windows come out in the order of their first row, and so do the rows in a window. No document is
/// split; the same rows in the same order give the same windows. Memory: one pool.
class Packer {
 public:
  using Window = std::vector<Example>;

  /// `packing` false: every row is a window of its own, in order.
  Packer(int64_t max_length, bool packing, std::function<void(const Window&)> window);
  /// Error(internal) for an example of more than max_length tokens.
  void add(Example example);
  /// Packs what is left in the pool.
  void finish();

 private:
  int64_t max_length_, pool_tokens_ = 0;
  bool packing_;
  std::function<void(const Window&)> window_;
  std::vector<Example> pool_;
};

}  // namespace retort
