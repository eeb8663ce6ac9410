#include "data/loader.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"

namespace retort {
namespace {

std::string permutation_hash(const std::vector<int64_t>& permutation) {
  return fmt::format("{:016x}", xxh3({reinterpret_cast<const char*>(permutation.data()), permutation.size() * 8}));
}

}  // namespace

Json Ledger::to_json() const {
  Json reasons = Json::object();
  for (const auto& [reason, count] : dropped) reasons[reason] = count;
  return {{"rows", rows},
          {"tokens", tokens},
          {"trained_tokens", trained_tokens},
          {"truncated", truncated},
          {"dropped", reasons}};
}

Loader::Loader(const PackedDataset& data, uint64_t seed, bool shuffle) : data_(data), seed_(seed), shuffle_(shuffle) {
  if (data.windows() < 1) fail(Exit::bad_input, "the data set has no window");
  shuffle_epoch();
}

void Loader::shuffle_epoch() {
  permutation_.resize(data_.windows());
  std::iota(permutation_.begin(), permutation_.end(), int64_t{0});
  if (!shuffle_) return;
  Rng(seed_, static_cast<uint64_t>(epoch_)).shuffle(std::span(permutation_));
}

std::vector<int64_t> Loader::next(int64_t n) {
  if (position_ == data_.windows()) {
    ++epoch_;
    position_ = 0;
    shuffle_epoch();
  }
  int64_t end = std::min(position_ + n, data_.windows());
  std::vector<int64_t> windows(permutation_.begin() + position_, permutation_.begin() + end);
  position_ = end;
  return windows;
}

Json Loader::state() const {
  return {{"data", data_.key()},
          {"windows", data_.windows()},
          {"seed", seed_},
          {"shuffle", shuffle_},
          {"epoch", epoch_},
          {"position", position_},
          {"permutation", permutation_hash(permutation_)}};
}

void Loader::restore(const Json& state) {
  const std::string where = "loader state";
  auto expect = [&](const char* key, const auto& own, const auto& found) {
    if (own != found)
      fail(Exit::bad_input, "{}: {} is {} there and {} here; the run cannot go on with other data or another seed",
           where, key, found, own);
  };
  expect("data", data_.key(), json_get<std::string>(state, "data", where));
  expect("windows", data_.windows(), json_get<int64_t>(state, "windows", where));
  expect("seed", seed_, json_get<uint64_t>(state, "seed", where));
  expect("shuffle", shuffle_, json_get<bool>(state, "shuffle", where));
  int64_t epoch = json_get<int64_t>(state, "epoch", where), position = json_get<int64_t>(state, "position", where);
  if (epoch < 0 || position < 0 || position > data_.windows())
    fail(Exit::bad_input, "{}: epoch {} and position {} of {} windows", where, epoch, position, data_.windows());
  epoch_ = epoch;
  position_ = position;
  shuffle_epoch();
  expect("permutation", permutation_hash(permutation_), json_get<std::string>(state, "permutation", where));
}

}  // namespace retort
