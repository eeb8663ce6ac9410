// bitsandbytes' formats against its own CPU code (tests/golden/make_bnb.py), bit for bit.
#include "quant/bnb.h"

#include <ATen/ATen.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include "models/safetensors.h"
#include "quant/quantized_tensor.h"

namespace retort {
namespace {

const SafetensorsFile& golden() {
  static const auto file = SafetensorsFile::open(RETORT_GOLDEN "/bnb.safetensors");
  return *file;
}

template <typename T>
std::vector<T> values(const std::string& name) {
  const auto bytes = golden().find(name)->bytes;
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

/// As the file has it, f32 or bf16.
QuantizedTensor weight(const std::string& name) {
  const SafetensorsEntry& entry = *golden().find(name);
  return {name, entry.type == at::kFloat ? GGML_TYPE_F32 : GGML_TYPE_BF16, entry.shape, entry.bytes, golden().file()};
}

std::vector<float> dense(const QuantizedTensor& tensor) {
  const at::Tensor all = tensor.dequantize();
  return {all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.numel()};
}

std::vector<uint8_t> codes(const QuantizedTensor& tensor) { return {tensor.bytes().begin(), tensor.bytes().end()}; }

struct Bnb : testing::TestWithParam<const char*> {
  void same_weights(const QuantizedTensor& tensor, const std::string& name) const {
    if (!golden().find(name)) return;
    EXPECT_EQ(dense(tensor), values<float>(name)) << name;
  }
};

INSTANTIATE_TEST_SUITE_P(, Bnb, testing::Values("rows", "cross", "odd", "many", "special", "zeros", "division"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Bnb, FourBitsAreItsOwn) {
  for (const char* kind : {"nf4", "fp4"}) {
    const std::string key = std::string(GetParam()) + "." + kind;
    const QuantizedTensor made = bnb_quantized(weight(GetParam()), bnb_options(kind));
    EXPECT_EQ(codes(made), values<uint8_t>(key + ".codes")) << key;
    EXPECT_EQ(made.bnb()->absmax, values<float>(key + ".absmax")) << key;
    same_weights(made, key + ".weight");
  }
}

// The mean of the scales is a sum whose order the processor's vectors decide: it may differ in the last bits. Given
// the same mean, nothing else may.
TEST_P(Bnb, DoubleQuantizationIsItsOwn) {
  for (const char* kind : {"nf4", "fp4"}) {
    const std::string key = std::string(GetParam()) + "." + kind;
    const QuantizedTensor made = bnb_quantized(weight(GetParam()), bnb_options(std::string(kind) + "_dq"));
    const BnbState& state = *made.bnb();
    const float offset = values<float>(key + ".offset")[0];
    EXPECT_NEAR(state.offset, offset, 4e-7f * offset) << key;
    if (state.offset != offset) continue;
    EXPECT_EQ(state.nested, values<uint8_t>(key + ".nested")) << key;
    EXPECT_EQ(state.absmax, values<float>(key + ".nested_absmax")) << key;
    same_weights(made, key + ".nested_weight");
  }
}

TEST_P(Bnb, Int8ByRowsIsItsOwn) {
  const std::string key = std::string(GetParam()) + ".int8";
  const QuantizedTensor made = bnb_quantized(weight(GetParam()), {.format = BnbFormat::int8_rows});
  EXPECT_EQ(codes(made), values<uint8_t>(key + ".CB"));
  EXPECT_EQ(made.bnb()->absmax, values<float>(key + ".SCB"));
  same_weights(made, key + ".weight");
}

TEST_P(Bnb, Int8ByBlocksIsItsOwn) {
  const std::string key = std::string(GetParam()) + ".blocks";
  const QuantizedTensor made = bnb_quantized(weight(GetParam()), {.format = BnbFormat::int8_blocks});
  EXPECT_EQ(codes(made), values<uint8_t>(key + ".codes"));
  EXPECT_EQ(made.bnb()->absmax, values<float>(key + ".absmax"));
  same_weights(made, key + ".weight");
}

TEST(BnbTables, AreItsOwn) {
  const auto equal = [](const auto& table, const char* name) {
    EXPECT_EQ(std::vector<float>(table.begin(), table.end()), values<float>(name)) << name;
  };
  equal(signed_dynamic_map(), "map.signed");
  equal(bnb_table(BnbFormat::nf4), "map.nf4");
  equal(bnb_table(BnbFormat::fp4), "map.fp4");
}

// Any range of rows, also one that begins inside a block or a byte, in every type of result.
TEST(BnbRows, AreThoseOfTheWhole) {
  for (const char* kind : {"nf4", "fp4", "int8", "int8_blocks"}) {
    const QuantizedTensor made = bnb_quantized(weight("odd"), bnb_options(kind));
    const at::Tensor all = made.dequantize();
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
      for (int64_t begin = 0; begin < made.rows(); ++begin) {
        at::Tensor some = at::empty({2, made.columns()}, dtype);
        const int64_t end = std::min(begin + 2, made.rows());
        made.dequantize_rows(begin, end, some.slice(0, 0, end - begin));
        EXPECT_TRUE(at::equal(some.slice(0, 0, end - begin), all.slice(0, begin, end).to(dtype))) << kind << begin;
      }
  }
}

TEST(BnbSizes, AreThoseOfTheReference) {
  const QuantizedTensor many = weight("many");
  EXPECT_DOUBLE_EQ(bnb_quantized(many, {}).bits_per_weight(), 4.5);
  EXPECT_NEAR(bnb_quantized(many, {.double_quantization = true}).bits_per_weight(), 4.127, 0.005);
  EXPECT_EQ(bnb_quantized(many, {}).bnb()->dtype, at::kBFloat16);
}

}  // namespace
}  // namespace retort
