#include "data/minhash.h"

#define XXH_INLINE_ALL  // bands are short: the call would cost as much as the hash
#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "core/rng.h"
#include "core/simd.h"

namespace retort {
namespace {

constexpr uint64_t hash_seed = 1;

/// h_i(x) = a_i x + b_i modulo 2^32, a_i odd: a permutation of the 32-bit numbers, and x is a hash already.
struct Permutations {
  std::vector<uint32_t> a, b;
  explicit Permutations(size_t count) : a(count), b(count) {
    Rng rng(hash_seed);
    for (size_t i = 0; i < count; ++i) {
      a[i] = static_cast<uint32_t>(rng.next() >> 32) | 1;
      b[i] = static_cast<uint32_t>(rng.next() >> 32);
    }
  }
};

RETORT_SIMD void take_minima(const uint32_t* shingles, size_t count, const uint32_t* a, const uint32_t* b,
                             uint32_t* minima, size_t hashes) {
  for (size_t s = 0; s < count; ++s) {
    const uint32_t x = shingles[s];
    for (size_t i = 0; i < hashes; ++i) minima[i] = std::min(minima[i], a[i] * x + b[i]);
  }
}

}  // namespace

MinHashSketch minhash(const Words& words, const MinHashOptions& options, const Boilerplate& boilerplate) {
  MinHashSketch sketch;
  const size_t n = std::min<size_t>(static_cast<size_t>(options.words), words.hashes.size());
  sketch.shingles.reserve(words.hashes.size() - n + 1);
  each_word_gram(words, n, [&](uint64_t gram) {
    if (boilerplate.empty() || !boilerplate.contains(gram))
      sketch.shingles.push_back(static_cast<uint32_t>(gram >> 32));
  });
  std::sort(sketch.shingles.begin(), sketch.shingles.end());
  sketch.shingles.erase(std::unique(sketch.shingles.begin(), sketch.shingles.end()), sketch.shingles.end());
  if (sketch.shingles.empty()) return sketch;
  const size_t hashes = static_cast<size_t>(options.bands * options.rows);
  thread_local Permutations permutations(0);
  if (permutations.a.size() != hashes) permutations = Permutations(hashes);
  sketch.signature.assign(hashes, UINT32_MAX);
  take_minima(sketch.shingles.data(), sketch.shingles.size(), permutations.a.data(), permutations.b.data(),
              sketch.signature.data(), hashes);
  return sketch;
}

double jaccard(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const uint32_t left = a[i], right = b[j];
    both += left == right;
    i += left <= right;
    j += right <= left;
  }
  const size_t either = a.size() + b.size() - both;
  return either == 0 ? 0 : static_cast<double>(both) / static_cast<double>(either);
}

double candidate_probability(double jaccard, const MinHashOptions& options) {
  const double band = std::pow(jaccard, static_cast<double>(options.rows));
  return 1 - std::pow(1 - band, static_cast<double>(options.bands));
}

std::vector<uint32_t> MinHashIndex::keys_of(std::span<const uint32_t> signature, const MinHashOptions& options) {
  std::vector<uint32_t> keys;
  if (signature.empty()) return keys;
  keys.reserve(static_cast<size_t>(options.bands));
  const size_t size = static_cast<size_t>(options.rows) * sizeof(uint32_t);
  for (int64_t band = 0; band < options.bands; ++band) {
    const uint64_t hash =
        XXH3_64bits_withSeed(signature.data() + band * options.rows, size, static_cast<uint64_t>(band));
    keys.push_back(static_cast<uint32_t>(hash >> 32));
  }
  return keys;
}

size_t MinHashIndex::slot_of(uint32_t key) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = first_slot_of(key);
  while (slots_[slot].newest != none && slots_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

void MinHashIndex::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old)
    if (slot.newest != none) slots_[slot_of(slot.key)] = slot;
}

std::optional<MinHashIndex::Match> MinHashIndex::find(std::span<const uint32_t> shingles,
                                                      std::span<const uint32_t> keys) const {
  for (const uint32_t key : keys) __builtin_prefetch(&slots_[first_slot_of(key)]);
  std::vector<uint32_t> candidates;
  for (size_t band = 0; band < keys.size(); ++band) {
    uint32_t entry = slots_[slot_of(keys[band])].newest;
    for (size_t seen = 0; entry != none && seen < most_candidates; ++seen) {
      candidates.push_back(entry);
      entry = older_[entry * keys.size() + band];
    }
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  if (candidates.size() > most_candidates) candidates.erase(candidates.begin(), candidates.end() - most_candidates);
  std::optional<Match> best;
  for (uint32_t entry : candidates) {
    const std::span<const uint32_t> other(shingles_.data() + begins_[entry], shingles_.data() + begins_[entry + 1]);
    const double similarity = jaccard(shingles, other);
    if (similarity >= options_.threshold && (!best || similarity > best->jaccard)) best = {ids_[entry], similarity};
  }
  return best;
}

void MinHashIndex::add(std::span<const uint32_t> shingles, std::span<const uint32_t> keys, int64_t id) {
  if (keys.empty()) return;
  const auto entry = static_cast<uint32_t>(ids_.size());
  for (const uint32_t key : keys) {
    if ((used_ + 1) * 4 > slots_.size() * 3) grow();
    Slot& slot = slots_[slot_of(key)];
    used_ += slot.newest == none;
    older_.push_back(slot.newest);
    slot = {key, entry};
  }
  shingles_.insert(shingles_.end(), shingles.begin(), shingles.end());
  begins_.push_back(shingles_.size());
  ids_.push_back(id);
}

}  // namespace retort
