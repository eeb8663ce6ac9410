#include "monitor/hashed_counts.h"

#include <fmt/format.h>

#include <map>

#include "core/hash.h"

namespace retort {

int32_t TokenHash::bucket(int32_t id) const {
  const auto index = static_cast<size_t>(id);
  if (index >= known_.size()) known_.resize(index + 1, -1);
  if (known_[index] < 0) {
    const std::string digest = hmac_sha256(key_, fmt::format("token {}", id));
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(digest[static_cast<size_t>(i)]);
    known_[index] = static_cast<int32_t>(value % kBuckets);
  }
  return known_[index];
}

SparseCounts TokenHash::counts(std::span<const int32_t> ids) const {
  std::map<int32_t, int64_t> counts;
  for (int32_t id : ids) ++counts[bucket(id)];
  return {counts.begin(), counts.end()};
}

}  // namespace retort
