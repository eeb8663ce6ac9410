// QuantizedTensor against ggml's own dequantization, for every type of blocks.
#include "quant/quantized_tensor.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/error.h"

namespace retort {
namespace {

constexpr int64_t kRows = 70, kColumns = 512;  // more rows than one task takes, two blocks of the largest types

at::Tensor random_weights() {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0, 0.02F);
  at::Tensor weights = at::empty({kRows, kColumns});
  for (int64_t i = 0; i < weights.numel(); ++i) weights.data_ptr<float>()[i] = normal(generator);
  return weights;
}

QuantizedTensor quantized(ggml_type type, const at::Tensor& weights) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(ggml_row_size(type, weights.size(1)) * weights.size(0));
  ggml_quantize_chunk(type, weights.const_data_ptr<float>(), bytes->data(), 0, weights.size(0), weights.size(1),
                      nullptr);
  return QuantizedTensor("w", type, {weights.size(0), weights.size(1)}, *bytes, bytes);
}

/// The same bits, or the same infinities and NaNs: random blocks have a few.
bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && at::allclose(a, b, /*rtol=*/0, /*atol=*/0, /*equal_nan=*/true);
}

/// Every type that weights can be stored in as blocks.
std::vector<ggml_type> block_types() {
  std::vector<ggml_type> types;
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    const ggml_type_traits& traits = *ggml_get_type_traits(type);
    // Q8_1 and Q8_K are ggml's types for activations: no file holds them.
    if (traits.is_quantized && traits.to_float && traits.type_size > 0 && type != GGML_TYPE_Q8_1 &&
        type != GGML_TYPE_Q8_K)
      types.push_back(type);
  }
  return types;
}

class EveryType : public testing::TestWithParam<ggml_type> {};

// Random bytes are blocks too, of every pattern; and the grids of the smallest types take ggml's quantizer 15 s to set
// up.
TEST_P(EveryType, DequantizesBitForBitAsGgml) {
  std::mt19937 generator(7);
  std::vector<uint8_t> bytes(ggml_row_size(GetParam(), kColumns) * kRows);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
  const QuantizedTensor tensor("w", GetParam(), {kRows, kColumns}, bytes, nullptr);
  at::Tensor expected = at::empty({kRows, kColumns});
  ggml_get_type_traits(GetParam())->to_float(bytes.data(), expected.data_ptr<float>(), expected.numel());

  const at::Tensor found = tensor.dequantize();
  EXPECT_EQ(std::memcmp(found.const_data_ptr(), expected.const_data_ptr(), expected.nbytes()), 0);
  for (at::ScalarType dtype : {at::kDouble, at::kBFloat16, at::kHalf})
    EXPECT_TRUE(same(tensor.dequantize(dtype), expected.to(dtype))) << c10::toString(dtype);
  at::Tensor part = at::empty({5, kColumns});
  tensor.dequantize_rows(31, 36, part);
  EXPECT_TRUE(same(part, expected.narrow(0, 31, 5)));
}

INSTANTIATE_TEST_SUITE_P(Ggml, EveryType, testing::ValuesIn(block_types()),
                         [](const auto& info) { return ggml_type_label(info.param); });

TEST(QuantizedTensor, HoldsTheFloatTypes) {
  const at::Tensor weights = random_weights();
  const auto check = [&](at::ScalarType dtype, ggml_type type) {
    const at::Tensor stored = weights.to(dtype).contiguous();
    const std::span bytes(static_cast<const uint8_t*>(stored.const_data_ptr()), stored.nbytes());
    const QuantizedTensor tensor("w", type, {kRows, kColumns}, bytes, nullptr);
    EXPECT_TRUE(at::equal(tensor.dequantize(), stored.to(at::kFloat))) << tensor.type_name();
    EXPECT_TRUE(at::equal(tensor.dequantize(at::kDouble), stored.to(at::kDouble))) << tensor.type_name();
    EXPECT_EQ(tensor.bits_per_weight(), 8.0 * static_cast<double>(stored.element_size()));
  };
  check(at::kFloat, GGML_TYPE_F32);
  check(at::kHalf, GGML_TYPE_F16);
  check(at::kBFloat16, GGML_TYPE_BF16);
  check(at::kDouble, GGML_TYPE_F64);
}

TEST(QuantizedTensor, KeepsDoublesWhole) {
  const double value = 1.0 + 1e-12;  // not a float
  const QuantizedTensor tensor("w", GGML_TYPE_F64, {1}, {reinterpret_cast<const uint8_t*>(&value), sizeof value},
                               nullptr);
  EXPECT_EQ(tensor.dequantize(at::kDouble).item<double>(), value);
}

TEST(QuantizedTensor, PermutesWholeRows) {
  const QuantizedTensor tensor = quantized(GGML_TYPE_Q4_K, random_weights());
  std::vector<int64_t> order(kRows);
  for (int64_t i = 0; i < kRows; ++i) order[static_cast<size_t>(i)] = (i * 31 + 5) % kRows;
  const at::Tensor expected = tensor.dequantize().index_select(0, at::tensor(order, at::kLong));
  EXPECT_TRUE(at::equal(tensor.permute_rows(order).dequantize(), expected));
  EXPECT_FALSE(at::equal(tensor.dequantize(), expected));
}

TEST(QuantizedTensor, PermutesTheElementsOfVectors) {
  const std::vector<float> values = {1, 2, 3};
  const QuantizedTensor tensor("b", GGML_TYPE_F32, {3}, {reinterpret_cast<const uint8_t*>(values.data()), 12}, nullptr);
  const std::vector<int64_t> order = {2, 0, 1};
  EXPECT_TRUE(at::equal(tensor.permute_rows(order).dequantize(), at::tensor({3.0F, 1.0F, 2.0F})));
}

TEST(QuantizedTensor, KnowsItsSizes) {
  const QuantizedTensor tensor = quantized(GGML_TYPE_Q4_1, random_weights());
  EXPECT_EQ(tensor.type_name(), "Q4_1");
  EXPECT_EQ(tensor.rows(), kRows);
  EXPECT_EQ(tensor.columns(), kColumns);
  EXPECT_EQ(tensor.row_bytes(), kColumns / 32 * 20);
  EXPECT_DOUBLE_EQ(tensor.bits_per_weight(), 5.0);
}

/// The message of the Error(bad_input) that the constructor throws.
std::string refused(int type, std::vector<int64_t> shape, size_t bytes) {
  static const std::vector<uint8_t> zeros(4096);
  try {
    QuantizedTensor("w", type, std::move(shape), std::span(zeros).first(bytes), nullptr);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_input);
    return error.what();
  }
  return "accepted";
}

TEST(QuantizedTensor, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refused(GGML_TYPE_Q4_1, {2, 64}, 80), "accepted");
  EXPECT_EQ(refused(GGML_TYPE_Q4_1, {2, 64}, 79), "tensor w: 79 bytes, but shape [2, 64] in Q4_1 takes 80");
  EXPECT_EQ(refused(GGML_TYPE_Q4_1, {2, 48}, 60), "tensor w: rows of 48 are not whole blocks of 32 (Q4_1)");
  EXPECT_EQ(refused(4, {2, 64}, 80), "tensor w: ggml type 4 does not exist");  // removed from ggml
  EXPECT_EQ(refused(-1, {2, 64}, 80), "tensor w: ggml type -1 does not exist");
  EXPECT_EQ(refused(1000, {2, 64}, 80), "tensor w: ggml type 1000 does not exist");
  EXPECT_EQ(refused(GGML_TYPE_F32, {}, 4), "tensor w: a scalar, expected at least one dimension");
  EXPECT_EQ(refused(GGML_TYPE_F32, {2, 0}, 0), "tensor w: shape [2, 0] is impossible");
  EXPECT_EQ(refused(GGML_TYPE_F32, {int64_t{1} << 62, 4}, 0), "tensor w: shape [4611686018427387904, 4] is impossible");
}

TEST(QuantizedTensor, RefusesToReadIntegersAsWeights) {
  const std::vector<uint8_t> zeros(16);
  const QuantizedTensor tensor("ids", GGML_TYPE_I32, {4}, zeros, nullptr);
  try {
    tensor.dequantize();
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_input);
    EXPECT_STREQ(error.what(), "tensor ids: type I32 holds no weights");
  }
}

}  // namespace
}  // namespace retort
