// How often each token was seen, without saying which token: counts of HMAC buckets.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace retort {

/// Buckets with their counts, ascending, without zeros.
using SparseCounts = std::vector<std::pair<int32_t, int64_t>>;

/// Token ids into buckets: the first eight bytes of HMAC-SHA-256(key, "token <id>") modulo the number of buckets.
/// Without the key a bucket does not tell its tokens; several tokens share one.
class TokenHash {
 public:
  static constexpr int32_t kBuckets = 4096;
  explicit TokenHash(std::string key) : key_(std::move(key)) {}
  int32_t bucket(int32_t id) const;
  SparseCounts counts(std::span<const int32_t> ids) const;

 private:
  std::string key_;
  mutable std::vector<int32_t> known_;  ///< bucket of each id that was asked for; -1: not yet
};

}  // namespace retort
