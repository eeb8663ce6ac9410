// The kernels' decoders, run here on the CPU, against ggml and bitsandbytes, to the bit; with a GPU also the kernels.
#include "quant/device_weight.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/error.h"

namespace retort {
namespace {

using namespace blocks;

constexpr int64_t rows = 40, columns = 512;

QuantizedTensor random_blocks(ggml_type type) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(ggml_row_size(type, columns) * rows);
  std::mt19937 generator(11);
  for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(generator());
  const std::span<const uint8_t> blocks(*bytes);
  return QuantizedTensor("w", type, {rows, columns}, blocks, std::move(bytes));
}

QuantizedTensor in_bnb_format(const std::string& name) {
  std::mt19937 generator(12);
  std::normal_distribution<float> normal(0, 0.02F);
  auto floats = std::make_shared<std::vector<float>>(rows * columns);
  for (float& value : *floats) value = normal(generator);
  const std::span bytes(reinterpret_cast<const uint8_t*>(floats->data()), floats->size() * sizeof(float));
  return bnb_quantized(QuantizedTensor("w", GGML_TYPE_F32, {rows, columns}, bytes, floats), bnb_options(name));
}

/// All weights of a tensor by a decoder.
template <typename Decoder>
at::Tensor decoded(const Decoder& decoder) {
  at::Tensor out = at::empty({rows, columns});
  for (int64_t i = 0; i < out.numel(); i += 8) decoder.eight(i, out.data_ptr<float>() + i);
  return out;
}

/// The same bits, or both NaN: random blocks have a few, whose other bits mean nothing.
bool same(const at::Tensor& a, const at::Tensor& b) {
  return at::where(at::isnan(a), at::isnan(b), a.view(at::kInt) == b.view(at::kInt)).all().item<bool>();
}

template <typename Type>
void expect_ggmls(ggml_type type) {
  const QuantizedTensor tensor = random_blocks(type);
  at::Tensor expected = at::empty({rows, columns});
  ggml_get_type_traits(type)->to_float(tensor.bytes().data(), expected.data_ptr<float>(), expected.numel());
  EXPECT_TRUE(same(decoded(BlockDecoder<Type>{tensor.bytes().data()}), expected)) << ggml_type_label(type);
}

TEST(Decoders, GiveGgmlsWeightsBitForBit) {
  expect_ggmls<Q4_0>(GGML_TYPE_Q4_0);
  expect_ggmls<Q4_1>(GGML_TYPE_Q4_1);
  expect_ggmls<Q5_0>(GGML_TYPE_Q5_0);
  expect_ggmls<Q5_1>(GGML_TYPE_Q5_1);
  expect_ggmls<Q8_0>(GGML_TYPE_Q8_0);
  expect_ggmls<Q2_K>(GGML_TYPE_Q2_K);
  expect_ggmls<Q3_K>(GGML_TYPE_Q3_K);
  expect_ggmls<Q4_K>(GGML_TYPE_Q4_K);
  expect_ggmls<Q5_K>(GGML_TYPE_Q5_K);
  expect_ggmls<Q6_K>(GGML_TYPE_Q6_K);
}

Scales scales_of(const BnbState& s) {
  return {s.absmax.data(), s.is_double() ? s.nested.data() : nullptr, s.nested_map.data(), s.offset, s.block,
          s.nested_block};
}

// bnb_dequantize is held against bitsandbytes itself by the golden files of tests/models/bnb_test.cpp.
TEST(Decoders, GiveBitsandbytesWeightsBitForBit) {
  for (const char* name : {"nf4", "nf4_dq", "fp4", "fp4_dq"}) {
    const QuantizedTensor tensor = in_bnb_format(name);
    const BnbState& s = *tensor.bnb();
    const FourBitDecoder decoder{tensor.bytes().data(), bnb_table(s.format).data(), scales_of(s)};
    EXPECT_TRUE(same(decoded(decoder), tensor.dequantize())) << name;
  }
  const QuantizedTensor by_rows = in_bnb_format("int8"), by_blocks = in_bnb_format("int8_blocks");
  EXPECT_TRUE(same(decoded(Int8RowsDecoder{by_rows.bytes().data(), scales_of(*by_rows.bnb())}), by_rows.dequantize()));
  EXPECT_TRUE(same(
      decoded(Int8BlocksDecoder{by_blocks.bytes().data(), signed_dynamic_map().data(), scales_of(*by_blocks.bnb())}),
      by_blocks.dequantize()));
}

std::vector<QuantizedTensor> supported_tensors() {
  std::vector<QuantizedTensor> all;
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
                               GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K})
    all.push_back(random_blocks(type));
  for (const char* name : {"nf4", "nf4_dq", "fp4", "fp4_dq", "int8", "int8_blocks"}) all.push_back(in_bnb_format(name));
  return all;
}

TEST(DeviceWeight, SupportsTheFormsOfItsKernelsOnly) {
  for (const QuantizedTensor& tensor : supported_tensors())
    EXPECT_TRUE(DeviceWeight::supports(tensor)) << tensor.type_name();
  for (const ggml_type type : {GGML_TYPE_IQ4_NL, GGML_TYPE_IQ2_XXS, GGML_TYPE_TQ1_0, GGML_TYPE_MXFP4})
    EXPECT_FALSE(DeviceWeight::supports(random_blocks(type))) << ggml_type_label(type);
  const std::vector<uint8_t> bytes(36);
  EXPECT_FALSE(DeviceWeight::supports(QuantizedTensor("w", GGML_TYPE_F32, {1, 9}, bytes, nullptr)));
}

#define SKIP_WITHOUT_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device: run bench/device on a machine that has one"

TEST(DeviceWeight, GivesTheHostsWeightsBitForBit) {
  SKIP_WITHOUT_GPU();
  for (const QuantizedTensor& tensor : supported_tensors()) {
    const DeviceWeight weight(tensor, at::kCUDA);
    for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const at::Tensor all = at::empty({rows, columns}, at::TensorOptions(at::kCUDA).dtype(dtype));
      weight.dequantize_rows(0, rows, all);
      const at::Tensor expected = tensor.dequantize(dtype), got = all.cpu();
      EXPECT_TRUE(at::allclose(got, expected, 0, 0, /*equal_nan=*/true)) << tensor.type_name() << dtype;
      const at::Tensor some = weight.rows_at(at::tensor({7, 0, 39}, at::kLong), dtype).cpu();
      EXPECT_TRUE(at::allclose(some, expected.index_select(0, at::tensor({7, 0, 39}, at::kLong)), 0, 0, true));
    }
  }
}

TEST(DeviceWeight, MultipliesFewTokensInItsBlocks) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(1);
  for (const char* name : {"nf4", "nf4_dq", "fp4", "int8", "int8_blocks"}) {
    const QuantizedTensor tensor = in_bnb_format(name);
    const DeviceWeight weight(tensor, at::kCUDA);
    for (const int64_t tokens : {1, 2, 4, 7, 16})
      for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
        const at::Tensor x = at::randn({tokens, columns}, at::kCUDA).to(dtype);
        const at::Tensor y = at::empty({tokens, rows}, x.options());
        ASSERT_TRUE(weight.multiplies(x));
        weight.multiply(x, y);
        const at::Tensor expected = at::mm(x.cpu().to(at::kDouble), tensor.dequantize(at::kDouble).t());
        const double rounding = dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 2e-3 : 1e-2;
        EXPECT_LT(((y.cpu() - expected).norm() / expected.norm()).item<double>(), rounding) << name << dtype << tokens;
      }
  }
}

TEST(DeviceWeight, TakesNoMoreMemoryThanItsBytes) {
  SKIP_WITHOUT_GPU();
  for (const QuantizedTensor& tensor : supported_tensors()) {
    const DeviceWeight weight(tensor, at::kCUDA);
    EXPECT_LE(weight.bytes(), static_cast<int64_t>(tensor.stored_bytes()) + 2048 + 64) << tensor.type_name();
  }
}

TEST(DeviceWeight, SaysThatThisBuildHasNoKernels) {
  if (kernels::built()) GTEST_SKIP() << "this build has them";
  EXPECT_STREQ(kernels::dequantize({}, nullptr, 0, 1, kernels::Float::f32, nullptr, nullptr),
               "this program was built without CUDA (cmake -DCUDA=on)");
}

}  // namespace
}  // namespace retort
