// Products by tiles against products with the whole weight, for every way that a weight can be stored.
#include "models/quantized_matmul.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <array>

#include "core/error.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

QuantizedTensor random_weight(const std::string& type, int64_t rows, int64_t columns) {
  const at::Tensor dense = at::randn({rows, columns}) * 0.02;
  const auto copy = std::make_shared<at::Tensor>(dense);
  const std::span bytes(static_cast<const uint8_t*>(copy->const_data_ptr()), copy->nbytes());
  const QuantizedTensor f32("w", GGML_TYPE_F32, {rows, columns}, bytes, copy);
  if (type == "F32") return f32;
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto ggml = static_cast<ggml_type>(i);
    if (ggml_get_type_traits(ggml)->type_size == 0 || ggml_type_label(i) != type) continue;
    auto quantized = std::make_shared<std::vector<uint8_t>>(ggml_row_size(ggml, columns) * static_cast<size_t>(rows));
    ggml_quantize_chunk(ggml, dense.const_data_ptr<float>(), quantized->data(), 0, rows, columns, nullptr);
    const std::span<const uint8_t> blocks(*quantized);
    return QuantizedTensor("w", i, {rows, columns}, blocks, std::move(quantized));
  }
  return bnb_quantized(f32, bnb_options(type));
}

class TiledMatmul : public testing::TestWithParam<const char*> {};

// Shapes with whole tiles, with a rest in each direction, with one token, and with more rows than fit a tile.
TEST_P(TiledMatmul, EqualsTheProductWithTheWholeWeight) {
  at::manual_seed(1);
  for (const auto& [tokens, rows, columns] :
       {std::array<int64_t, 3>{64, 64, 512}, {1, 100, 256}, {77, 130, 768}, {5, 3000, 1024}}) {
    const QuantizedTensor w = random_weight(GetParam(), rows, columns);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      const auto options = at::TensorOptions().dtype(dtype);
      const double tolerance = dtype == at::kFloat ? 5e-6 : 1e-13;
      const at::Tensor whole = w.dequantize(dtype), x = at::randn({tokens, columns}, options),
                       dy = at::randn({tokens, rows}, options), start = at::randn({tokens, columns}, options);
      const at::Tensor y = at::empty({tokens, rows}, options), dx = at::empty({tokens, columns}, options);
      matmul_transposed(x, w, y);
      EXPECT_LT(relative(y, at::mm(x, whole.t())), tolerance) << tokens << " x " << rows << " x " << columns;
      matmul(dy, w, dx);
      EXPECT_LT(relative(dx, at::mm(dy, whole)), tolerance) << tokens << " x " << rows << " x " << columns;
      dx.copy_(start);
      matmul(dy, w, dx, true);
      EXPECT_LT(relative(dx, start + at::mm(dy, whole)), tolerance) << tokens << " x " << rows << " x " << columns;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TiledMatmul,
                         testing::Values("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K",
                                         "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ2_0", "nf4", "nf4_dq",
                                         "fp4", "int8", "int8_blocks"),
                         [](const auto& info) { return std::string(info.param); });

// Rows that end within a vector, for each number of tokens that goes without tiles or just not.
TEST(TiledMatmul, ColumnsNeedNotFillAVector) {
  at::manual_seed(4);
  for (const char* type : {"F32", "F16", "BF16", "int8"})
    for (int64_t tokens = 1; tokens <= 17; ++tokens) {
      const QuantizedTensor w = random_weight(type, 5, 77);
      const at::Tensor whole = w.dequantize(at::kFloat), x = at::randn({tokens, 77}), y = at::empty({tokens, 5});
      matmul_transposed(x, w, y);
      EXPECT_LT(relative(y, at::mm(x, whole.t())), 5e-6) << type << " " << tokens;
    }
}

TEST(TiledMatmul, WritesIntoSlicesAndNowhereElse) {
  at::manual_seed(2);
  const QuantizedTensor w = random_weight("Q4_1", 70, 96);
  const at::Tensor x = at::randn({33, 200}).slice(1, 50, 146), dy = at::randn({33, 300}).slice(1, 7, 77);
  at::Tensor y = at::full({33, 100}, 5.0F), dx = at::full({33, 128}, 5.0F);
  matmul_transposed(x, w, y.slice(1, 20, 90));
  matmul(dy, w, dx.slice(1, 16, 112));
  EXPECT_LT(relative(y.slice(1, 20, 90), at::mm(x, w.dequantize().t())), 2e-6);
  EXPECT_LT(relative(dx.slice(1, 16, 112), at::mm(dy, w.dequantize())), 2e-6);
  for (const at::Tensor& untouched : {y.slice(1, 0, 20), y.slice(1, 90), dx.slice(1, 0, 16), dx.slice(1, 112)})
    EXPECT_TRUE(at::equal(untouched, at::full_like(untouched, 5.0F)));
}

TEST(TiledMatmul, TheNumberOfThreadsChangesNoBit) {
  at::manual_seed(3);
  const int before = at::get_num_threads();
  const QuantizedTensor w = random_weight("nf4", 700, 2048);
  const at::Tensor x = at::randn({130, 2048}), dy = at::randn({130, 700});
  std::vector<at::Tensor> ys, dxs;
  for (const int threads : {1, 2, 8}) {
    at::set_num_threads(threads);
    ys.push_back(at::empty({130, 700}));
    dxs.push_back(at::empty({130, 2048}));
    matmul_transposed(x, w, ys.back());
    matmul(dy, w, dxs.back());
  }
  at::set_num_threads(before);
  for (size_t i = 1; i < ys.size(); ++i) {
    EXPECT_TRUE(at::equal(ys[i], ys[0]));
    EXPECT_TRUE(at::equal(dxs[i], dxs[0]));
  }
}

// One set of flags compiles the tests and the libraries. Without -fopenmp this loop, and each of ours, runs on one
// thread.
TEST(ParallelFor, RunsOnEveryThread) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::array<int, 2> threads = {-1, -1};
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) threads[static_cast<size_t>(i)] = at::get_thread_num();
  });
  at::set_num_threads(before);
  EXPECT_EQ(threads, (std::array<int, 2>{0, 1}));
}

TEST(TiledMatmul, RefusesIntegersAsWeights) {
  const std::vector<uint8_t> zeros(64);
  const QuantizedTensor ids("ids", GGML_TYPE_I32, {4, 4}, zeros, nullptr);
  EXPECT_THROW(matmul_transposed(at::zeros({1, 4}), ids, at::zeros({1, 4})), Error);
}

}  // namespace
}  // namespace retort
