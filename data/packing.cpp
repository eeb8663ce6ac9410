#include "data/packing.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <span>

#include "core/error.h"
#include "core/rng.h"

namespace retort {
namespace {

constexpr size_t pool_rows = 16384;
constexpr int64_t pool_tokens = int64_t{1} << 22;

}  // namespace

Packer::Packer(int64_t max_length, bool packing, std::function<void(const Window&)> window)
    : max_length_(max_length), packing_(packing), window_(std::move(window)) {}

void Packer::add(Example example) {
  int64_t tokens = static_cast<int64_t>(example.ids.size());
  if (tokens > max_length_)
    fail(Exit::internal, "{}: {} tokens do not fit a window of {}", example.place, tokens, max_length_);
  pool_tokens_ += tokens;
  pool_.push_back(std::move(example));
  if (!packing_ || pool_.size() >= pool_rows || pool_tokens_ >= pool_tokens) finish();
}

void Packer::finish() {
  auto length = [&](size_t row) { return static_cast<int64_t>(pool_[row].ids.size()); };
  std::vector<size_t> order(pool_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (packing_) Rng(0).shuffle(std::span(order));

  std::vector<std::vector<size_t>> windows;
  std::set<std::pair<int64_t, size_t>> room;  // tokens left, window
  for (size_t row : order) {
    auto fit = room.lower_bound({length(row), 0});
    size_t window = windows.size();
    int64_t left = max_length_;
    if (fit != room.end()) {
      std::tie(left, window) = *fit;
      room.erase(fit);
    } else {
      windows.emplace_back();
    }
    windows[window].push_back(row);
    room.insert({left - length(row), window});
  }
  for (auto& rows : windows) std::sort(rows.begin(), rows.end());
  std::sort(windows.begin(), windows.end());
  for (const auto& rows : windows) {
    Window window;
    for (size_t row : rows) window.push_back(std::move(pool_[row]));
    window_(window);
  }
  pool_.clear();
  pool_tokens_ = 0;
}

}  // namespace retort
