#include "distill/symbol_coder.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

constexpr int64_t whole = 1 << SymbolModel::bits;
constexpr int guess_shift = SymbolModel::bits - 8;

/// Counts as shares of 2^15, none that is not zero less than 1.
std::vector<uint32_t> shares(std::span<const int64_t> counts) {
  const double sum = [&] {
    double total = 0;
    for (int64_t count : counts) total += static_cast<double>(count);
    return total;
  }();
  std::vector<uint32_t> share(counts.size());
  int64_t left = whole;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    share[i] = std::max<uint32_t>(1, static_cast<uint32_t>(std::floor(double(counts[i]) / sum * double(whole))));
    left -= share[i];
  }
  // What rounding left over, or took too much, is the most frequent symbols'.
  while (left != 0) {
    uint32_t& most = *std::max_element(share.begin(), share.end());
    const int64_t change = left > 0 ? left : std::max<int64_t>(left, -std::max<int64_t>(1, most / 2));
    most = static_cast<uint32_t>(most + change);
    left -= change;
  }
  return share;
}

}  // namespace

SymbolModel SymbolModel::from_counts(std::span<const int64_t> counts) {
  const std::vector<int64_t> one = {1};
  auto first = std::find_if(counts.begin(), counts.end(), [](int64_t n) { return n > 0; });
  if (first == counts.end()) counts = one, first = counts.begin();
  auto last = counts.end();
  while (last[-1] == 0) --last;
  if (last - first > most_symbols) fail(Exit::internal, "a model of {} symbols", last - first);
  std::vector<uint16_t> words = {static_cast<uint16_t>(first - counts.begin()), static_cast<uint16_t>(last - first)};
  for (uint32_t share : shares({first, last})) words.push_back(static_cast<uint16_t>(share));
  size_t at = 0;
  return parse(words, at, "symbol model");
}

SymbolModel SymbolModel::parse(std::span<const uint16_t> words, size_t& at, const std::string& where) {
  SymbolModel model;
  const auto bad = [&] { fail(Exit::bad_input, "{}: a table of frequencies at {} does not read", where, at); };
  if (at + 2 > words.size() || words[at + 1] == 0 || at + 2 + words[at + 1] > words.size()) bad();
  model.first_ = words[at];
  const auto sizes = words.subspan(at + 2, words[at + 1]);
  model.starts_ = {0};
  for (uint16_t size : sizes) model.starts_.push_back(model.starts_.back() + size);
  if (model.starts_.back() != whole) bad();
  uint16_t symbol = 0;
  for (uint32_t slot = 0; slot < whole; slot += 1 << guess_shift) {
    while (model.starts_[symbol + 1] <= slot) ++symbol;
    model.guess_.push_back(symbol);
  }
  at += 2 + sizes.size();
  return model;
}

void SymbolModel::append_to(std::vector<uint16_t>& words) const {
  words.push_back(static_cast<uint16_t>(first_));
  words.push_back(static_cast<uint16_t>(starts_.size() - 1));
  for (size_t i = 0; i + 1 < starts_.size(); ++i) words.push_back(static_cast<uint16_t>(starts_[i + 1] - starts_[i]));
}

uint32_t SymbolModel::symbol(uint32_t slot) const {
  const size_t part = slot >> guess_shift;
  const auto begin = starts_.begin() + guess_[part] + 1;
  const auto end = part + 1 < guess_.size() ? starts_.begin() + guess_[part + 1] + 2 : starts_.end();
  return first_ + static_cast<uint32_t>(std::upper_bound(begin, end, slot) - starts_.begin()) - 1;
}

double SymbolModel::cost(std::span<const int64_t> counts) const {
  double total = 0;
  for (size_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) total += double(counts[s]) * (bits - std::log2(double(size(static_cast<uint32_t>(s)))));
  return total;
}

void SymbolEncoder::put(uint32_t start, uint32_t size) {
  const uint64_t limit = (uint64_t{low >> SymbolModel::bits} << 8) * size;
  for (; state_ >= limit; state_ >>= 8) bytes_.push_back(static_cast<uint8_t>(state_));
  state_ = (state_ / size << SymbolModel::bits) + state_ % size + start;
}

std::vector<uint8_t> SymbolEncoder::finish() {
  for (int i = 0; i < 4; ++i, state_ >>= 8) bytes_.push_back(static_cast<uint8_t>(state_));
  std::reverse(bytes_.begin(), bytes_.end());
  state_ = low;
  return std::exchange(bytes_, {});
}

SymbolDecoder::SymbolDecoder(std::span<const uint8_t> bytes) : bytes_(bytes) {
  for (; at_ < 4; ++at_) state_ = state_ << 8 | (at_ < bytes.size() ? bytes[at_] : 0);
}

}  // namespace retort
