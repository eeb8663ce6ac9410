#include "distill/symbol_coder.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"

namespace retort {
namespace {

TEST(SymbolCoder, GivesBackWhatWasPutInTheBytesThatEntropyAllows) {
  Rng rng(1);
  std::vector<uint32_t> symbols;
  std::vector<int64_t> counts(256);
  for (int i = 0; i < 20'000; ++i) {
    uint32_t symbol = 100;
    while (rng.below(3) > 0) ++symbol;
    symbols.push_back(symbol);
    ++counts[symbol];
  }
  std::vector<uint16_t> words;
  SymbolModel::from_counts(counts).append_to(words);
  size_t at = 0;
  const SymbolModel model = SymbolModel::parse(words, at, "words");
  EXPECT_EQ(at, words.size());
  SymbolEncoder encoder;
  for (size_t i = symbols.size(); i-- > 0;) {
    encoder.put_bits(symbols[i] & 7, 3);
    encoder.put(model, symbols[i]);
  }
  const std::vector<uint8_t> bytes = encoder.finish();
  EXPECT_LT(8.0 * double(bytes.size()), 1.001 * (model.cost(counts) + 3 * 20'000) + 32);
  SymbolDecoder decoder(bytes);
  for (uint32_t symbol : symbols) {
    ASSERT_EQ(decoder.get(model), symbol);
    ASSERT_EQ(decoder.get_bits(3), symbol & 7);
  }
  EXPECT_TRUE(decoder.finished());
}

TEST(SymbolCoder, KeepsRareSymbolsAmongManyFrequentOnes) {
  std::vector<int64_t> counts(SymbolModel::most_symbols, 1);
  counts[7] = 1'000'000'000;
  const SymbolModel model = SymbolModel::from_counts(counts);
  for (uint32_t s : {0u, 7u, 9u, uint32_t(SymbolModel::most_symbols - 1)}) {
    EXPECT_GE(model.size(s), 1u);
    EXPECT_EQ(model.symbol(model.start(s)), s);
    EXPECT_EQ(model.symbol(model.start(s) + model.size(s) - 1), s);
  }
  EXPECT_EQ(SymbolModel::from_counts(std::vector<int64_t>(4)).size(0), 1u << SymbolModel::bits) << "nothing counted";
}

TEST(SymbolCoder, RefusesTablesThatDoNotAddUp) {
  for (const std::vector<uint16_t>& words :
       std::vector<std::vector<uint16_t>>{{}, {0}, {0, 0}, {0, 2, 1}, {0, 2, 1, 1}, {0, 2, 32768, 1}}) {
    size_t at = 0;
    EXPECT_THROW(SymbolModel::parse(words, at, "words"), Error);
  }
}

TEST(SymbolCoder, ReadsDamagedBytesToAnEnd) {
  const SymbolModel model = SymbolModel::from_counts(std::vector<int64_t>{5, 1, 0, 9});
  SymbolEncoder encoder;
  for (int i = 0; i < 100; ++i) encoder.put(model, i % 7 == 0 ? 1 : 3);
  std::vector<uint8_t> bytes = encoder.finish();
  for (size_t size = 0; size < bytes.size(); ++size) {
    SymbolDecoder decoder({bytes.data(), size});
    for (int i = 0; i < 100; ++i) EXPECT_LT(decoder.get(model), 4u);
    EXPECT_FALSE(decoder.finished()) << size;
  }
}

}  // namespace
}  // namespace retort
