// Random numbers for decisions about data: the same on every machine, and (seed, stream, position) is all the state.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

namespace retort {

/// SplitMix64 read by position (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). Stream 0 of
/// a seed is the published sequence. Not for secrets.
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : key_(stream == 0 ? seed : mix(seed ^ mix(stream))) {}

  uint64_t next() { return mix(key_ + ++position_ * kGamma); }
  /// In [0, 1), with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  /// In [0, n), every value equally likely; n > 0. (Lemire: Fast random integer generation in an interval, 2019.)
  uint64_t below(uint64_t n) {
    for (;;) {
      __extension__ using Wide = unsigned __int128;  // no ISO type, but every compiler here has it
      const auto product = static_cast<Wide>(next()) * n;
      const auto low = static_cast<uint64_t>(product);
      if (low >= n || low >= -n % n) return static_cast<uint64_t>(product >> 64);
    }
  }
  /// Fisher-Yates.
  template <typename T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

  uint64_t position() const { return position_; }
  void seek(uint64_t position) { position_ = position; }

 private:
  static constexpr uint64_t kGamma = 0x9e3779b97f4a7c15;
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t key_, position_ = 0;
};

}  // namespace retort
