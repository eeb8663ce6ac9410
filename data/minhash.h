// Near duplicates: MinHash signatures (Broder: On the resemblance and containment of documents, 1997), found through
// bands of equal hashes and verified by the Jaccard similarity itself.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/boilerplate.h"
#include "data/words.h"

namespace retort {

struct MinHashOptions {
  int64_t words = 5;   ///< of a shingle
  int64_t bands = 18;  ///< two texts of similarity J become candidates with probability 1 - (1 - J^rows)^bands
  int64_t rows = 6;    ///< hashes in a band
  double threshold = 0.8;
};

/// What is kept of a text: its shingles but the boilerplate. A text of fewer words than a shingle has is one shingle.
struct MinHashSketch {
  std::vector<uint32_t> shingles;   ///< sorted, without repetition
  std::vector<uint32_t> signature;  ///< bands · rows minima; empty when there is no shingle
};
MinHashSketch minhash(const Words& words, const MinHashOptions& options, const Boilerplate& boilerplate = {});

/// |a ∩ b| / |a ∪ b| of sorted sets; 0 for two empty ones.
double jaccard(std::span<const uint32_t> a, std::span<const uint32_t> b);
/// The probability that two texts of similarity `jaccard` are compared.
double candidate_probability(double jaccard, const MinHashOptions& options);

/// Sketches by bands. Memory: 12 to 20 bytes a band and 4 bytes a shingle of each text that was added. Time is linear:
/// a text is compared with no more than `most_candidates` others, the newest first.
class MinHashIndex {
 public:
  static constexpr size_t most_candidates = 1000;
  explicit MinHashIndex(const MinHashOptions& options) : options_(options), slots_(1024) {}

  struct Match {
    int64_t id;
    double jaccard;
  };
  /// A key for each band of a signature; none without one.
  static std::vector<uint32_t> keys_of(std::span<const uint32_t> signature, const MinHashOptions& options);
  /// The most similar text at or above the threshold, the first added of equals. `keys`: those of the text.
  std::optional<Match> find(std::span<const uint32_t> shingles, std::span<const uint32_t> keys) const;
  void add(std::span<const uint32_t> shingles, std::span<const uint32_t> keys, int64_t id);
  std::optional<Match> find(const MinHashSketch& sketch) const {
    return find(sketch.shingles, keys_of(sketch.signature, options_));
  }
  void add(const MinHashSketch& sketch, int64_t id) { add(sketch.shingles, keys_of(sketch.signature, options_), id); }

 private:
  /// A band's key, and the newest entry that has it.
  struct Slot {
    uint32_t key = 0;
    uint32_t newest = none;
  };
  static constexpr uint32_t none = UINT32_MAX;

  size_t first_slot_of(uint32_t key) const { return key * 0x9e3779b97f4a7c15 >> 20 & (slots_.size() - 1); }
  size_t slot_of(uint32_t key) const;
  void grow();

  MinHashOptions options_;
  std::vector<Slot> slots_;         ///< open addressing
  size_t used_ = 0;                 ///< slots
  std::vector<uint32_t> older_;     ///< [entry · bands + band]: the entry before it with the same key, or none
  std::vector<uint32_t> shingles_;  ///< of all entries, one after the other
  std::vector<uint64_t> begins_ = {0};
  std::vector<int64_t> ids_;
};

}  // namespace retort
