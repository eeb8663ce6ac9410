// Tokenized rows on disk (HDF5), packed into windows, read a batch at a time: memory does not grow with the data set.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/batch.h"

namespace retort {

/// What happened to the rows; report.json's data.ledger.
struct Ledger {
  int64_t rows = 0, tokens = 0, trained_tokens = 0, truncated = 0;
  std::map<std::string, int64_t> dropped;  ///< reason -> rows
  Json to_json() const;
};

/// Windows of whole documents. A window holds at most max_length tokens (packing) or exactly one row.
class PackedDataset {
 public:
  virtual ~PackedDataset() = default;
  virtual int64_t windows() const = 0;
  virtual int64_t window_tokens(int64_t window) const = 0;
  virtual int64_t window_trained(int64_t window) const = 0;
  virtual const Ledger& ledger() const = 0;
  /// Documents of the given windows, laid end to end in that order; labels already shifted (labels[t] is ids[t + 1]
  /// where that token is trained, else -1).
  virtual Batch batch(std::span<const int64_t> windows) const = 0;
  /// SHA-256 of the key the cache file was made under: data, tokenizer, template, options.
  virtual std::string key() const = 0;
};

/// The order of windows in an epoch is a permutation drawn from (seed, epoch) alone, so (epoch, position) is all its
/// state.
class Loader {
 public:
  Loader(const PackedDataset& data, uint64_t seed, bool shuffle = true);
  /// The next `n` windows' indices; crosses into the next epoch only at its start: fewer than n at an epoch's end.
  std::vector<int64_t> next(int64_t n);
  int64_t epoch() const { return epoch_; }
  int64_t position() const { return position_; }
  const std::vector<int64_t>& permutation() const { return permutation_; }
  Json state() const;
  /// Error(bad_input) when the state belongs to another data set, seed or permutation.
  void restore(const Json& state);

 private:
  void shuffle_epoch();
  const PackedDataset& data_;
  uint64_t seed_;
  bool shuffle_;
  int64_t epoch_ = 0, position_ = 0;
  std::vector<int64_t> permutation_;
};

}  // namespace retort
