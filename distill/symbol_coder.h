// Entropy coding with fixed models: range asymmetric numeral systems (Duda, arXiv 1311.2540), a byte at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace retort {

/// Frequencies of the symbols 0 .. n - 1 in units of 2^-15; a symbol that never came cannot be coded.
class SymbolModel {
 public:
  static constexpr int bits = 15;
  static constexpr int64_t most_symbols = 1 << 14;

  /// From counts; all zero counts code symbol 0 only.
  static SymbolModel from_counts(std::span<const int64_t> counts);
  /// Reads what append_to() wrote at `at` and moves it on; Error(bad_input) naming `where`.
  static SymbolModel parse(std::span<const uint16_t> words, size_t& at, const std::string& where);
  void append_to(std::vector<uint16_t>& words) const;

  uint32_t start(uint32_t symbol) const { return starts_[symbol - first_]; }
  /// One more than the greatest symbol.
  uint32_t end() const { return first_ + static_cast<uint32_t>(starts_.size()) - 1; }
  uint32_t size(uint32_t symbol) const { return starts_[symbol - first_ + 1] - starts_[symbol - first_]; }
  /// The symbol that owns `slot`, 0 <= slot < 2^15.
  uint32_t symbol(uint32_t slot) const;
  /// Bits that the symbols with these counts take with this model.
  double cost(std::span<const int64_t> counts) const;

 private:
  uint32_t first_ = 0;
  std::vector<uint32_t> starts_;  // of the symbols from first_ on, then 2^15
  std::vector<uint16_t> guess_;   // for slots' upper 8 bits: a symbol at or before theirs, less first_
};

/// Symbols are put last first and come out first first.
class SymbolEncoder {
 public:
  void put(const SymbolModel& model, uint32_t symbol) { put(model.start(symbol), model.size(symbol)); }
  /// `bits` <= 8 bits as they are.
  void put_bits(uint32_t value, int bits) {
    put(value << (SymbolModel::bits - bits), 1u << (SymbolModel::bits - bits));
  }
  /// The bytes of all symbols put since the last call.
  std::vector<uint8_t> finish();

 private:
  void put(uint32_t start, uint32_t size);
  uint32_t state_ = low;
  std::vector<uint8_t> bytes_;  // backwards

 public:
  static constexpr uint32_t low = 1u << 23;
};

class SymbolDecoder {
 public:
  explicit SymbolDecoder(std::span<const uint8_t> bytes);
  uint32_t get(const SymbolModel& model) {
    const uint32_t slot = state_ & mask, symbol = model.symbol(slot);
    take(model.start(symbol), model.size(symbol), slot);
    return symbol;
  }
  uint32_t get_bits(int bits) {
    const uint32_t slot = state_ & mask, value = slot >> (SymbolModel::bits - bits);
    take(value << (SymbolModel::bits - bits), 1u << (SymbolModel::bits - bits), slot);
    return value;
  }
  /// Whether the bytes ended exactly where the symbols did.
  bool finished() const { return at_ == bytes_.size() && state_ == SymbolEncoder::low; }

 private:
  static constexpr uint32_t mask = (1u << SymbolModel::bits) - 1;
  void take(uint32_t start, uint32_t size, uint32_t slot) {
    state_ = size * (state_ >> SymbolModel::bits) + slot - start;
    // Past the end of damaged bytes come ones, so that this ends; finished() tells.
    while (state_ < SymbolEncoder::low) state_ = state_ << 8 | (at_ < bytes_.size() ? bytes_[at_] : 255), ++at_;
  }
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  uint32_t state_ = 0;
};

}  // namespace retort
