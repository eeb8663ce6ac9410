// What quantization refuses: weights that are not finite, and scales that do not fit.
#include "quant/bnb.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "quant/quantized_tensor.h"

namespace retort {
namespace {

/// "" when nothing was thrown.
template <typename F>
std::string refusal(const F& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_input);
    return error.what();
  }
  return "";
}

TEST(Bnb, RefusesWeightsThatAreNotFinite) {
  for (const char* format : {"nf4", "fp4", "int8", "int8_blocks"})
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
      for (const size_t place : {size_t{0}, size_t{70}, size_t{129}}) {
        std::vector<float> weights(130, 0.5f);
        weights[place] = bad;
        EXPECT_NE(refusal([&] { bnb_quantize("w7", weights, 13, bnb_options(format)); }).find("w7"), std::string::npos)
            << format << place;
      }
  // Above f16's largest number.
  const std::vector<float> large(64, 1e5f);
  EXPECT_NE(refusal([&] { bnb_quantize("w7", large, 64, {.format = BnbFormat::int8_rows}); }), "");
}

TEST(Bnb, RefusesScalesThatDoNotFit) {
  const std::vector<float> weights(1000, 0.5f);
  const BnbWeights good = bnb_quantize("w", weights, 100, {.double_quantization = true});
  const auto refused = [&](auto damage) {
    auto state = std::make_shared<BnbState>(good.state);
    std::vector<int64_t> shape = {10, 100};
    size_t bytes = good.codes.size();
    damage(*state, shape, bytes);
    const std::string text =
        refusal([&] { QuantizedTensor("w7", state, shape, std::span(good.codes).first(bytes), nullptr); });
    EXPECT_TRUE(text.empty() || text.find("w7") != std::string::npos) << text;
    return !text.empty();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(refused([](auto&, auto&, auto&) {}));
  EXPECT_TRUE(refused([](auto&, auto& shape, auto&) { shape = {10, 101}; }));
  EXPECT_TRUE(refused([](auto&, auto& shape, auto&) { shape = {int64_t{1} << 40, int64_t{1} << 40}; }));
  EXPECT_TRUE(refused([](auto&, auto&, auto& bytes) { --bytes; }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.nested.pop_back(); }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.absmax.push_back(1); }));
  EXPECT_TRUE(refused([&](auto& s, auto&, auto&) { s.absmax[0] = nan; }));
  EXPECT_TRUE(refused([&](auto& s, auto&, auto&) { s.offset = nan; }));
  EXPECT_TRUE(refused([&](auto& s, auto&, auto&) { s.nested_map[3] = nan; }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.nested_map.resize(255); }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.block = 0; }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.block = 128; }));
  EXPECT_TRUE(refused([](auto& s, auto&, auto&) { s.nested_block = 0; }));
}

}  // namespace
}  // namespace retort
