// Quantized weights: quantizing to bitsandbytes' formats and dequantizing every type, in bytes of f32 a second, at the
// shape of a 7B model's layer; and products by tiles, with the whole weight dequantized first, and with a dense weight.
//   quant --benchmark_filter='^quantize'     OMP_NUM_THREADS sets the threads
//   quant --benchmark_filter='product.*Q4_K'
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <ggml.h>

#include <random>

#include "models/matmul.h"
#include "models/quantized_matmul.h"
#include "quant/quantized_tensor.h"

namespace retort {
namespace {

constexpr int64_t rows = 4096, columns = 11008;

const at::Tensor& weights() {
  static const at::Tensor all = at::randn({rows, columns});
  return all;
}

void bench_quantize(benchmark::State& state, const std::string& format) {
  const BnbOptions options = bnb_options(format);
  const std::span all(weights().const_data_ptr<float>(), static_cast<size_t>(weights().numel()));
  for (auto _ : state) benchmark::DoNotOptimize(bnb_quantize("w", all, columns, options).codes.data());
  state.SetBytesProcessed(static_cast<int64_t>(weights().nbytes()) * state.iterations());
}

/// A weight of random bytes (but for scales, which speed does not depend on) in one of bitsandbytes' formats or ggml's
/// types.
QuantizedTensor random_weight(const std::string& type, int64_t n, int64_t k) {
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto ggml = static_cast<ggml_type>(i);
    if (ggml_get_type_traits(ggml)->type_size == 0 || ggml_type_label(i) != type) continue;
    auto bytes = std::make_shared<std::vector<uint8_t>>(ggml_row_size(ggml, k) * static_cast<size_t>(n));
    std::mt19937 generator(1);
    for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(generator() & 0x3B);  // no infinity, no NaN
    const std::span<const uint8_t> blocks(*bytes);
    return QuantizedTensor("w", i, {n, k}, blocks, std::move(bytes));
  }
  const auto dense = std::make_shared<at::Tensor>(at::randn({n, k}));
  const std::span bytes(static_cast<const uint8_t*>(dense->const_data_ptr()), dense->nbytes());
  return bnb_quantized(QuantizedTensor("w", GGML_TYPE_F32, {n, k}, bytes, dense), bnb_options(type));
}

void bench_dequantize(benchmark::State& state, const std::string& type) {
  const QuantizedTensor tensor = random_weight(type, rows, columns);
  const at::Tensor out = at::empty({rows, columns});
  for (auto _ : state) tensor.dequantize_rows(0, rows, out);
  state.SetBytesProcessed(static_cast<int64_t>(out.nbytes()) * state.iterations());
}

/// The same, one row after another into the same 4 MiB, which the caches hold.
void bench_dequantize_cached(benchmark::State& state, const std::string& type) {
  const int64_t n = (1 << 20) / columns;
  const QuantizedTensor tensor = random_weight(type, n, columns);
  const at::Tensor out = at::empty({n, columns});
  for (auto _ : state) tensor.dequantize_rows(0, n, out);
  state.SetBytesProcessed(static_cast<int64_t>(out.nbytes()) * state.iterations());
}

enum class Way { tiles, whole, dense };

struct Shape {
  const char* name;
  int64_t out, in;
};
constexpr Shape shapes[] = {{"smollm2_gate", 1536, 576},
                            {"smollm2_down", 576, 1536},
                            {"llama1b_gate", 8192, 2048},
                            {"llama7b_gate", 11008, 4096},
                            {"llama7b_down", 4096, 11008}};

/// y = x Wᵀ and dx = dy W for so many tokens.
void bench_product(benchmark::State& state, const std::string& type, const Shape& shape, int64_t tokens, Way way) {
  const QuantizedTensor w = random_weight(type, shape.out, shape.in);
  const at::Tensor x = at::randn({tokens, shape.in}), dy = at::randn({tokens, shape.out});
  const at::Tensor y = at::empty({tokens, shape.out}), dx = at::empty({tokens, shape.in});
  const at::Tensor dense = way == Way::dense ? w.dequantize() : at::Tensor();
  for (auto _ : state) {
    if (way == Way::tiles) {
      matmul_transposed(x, w, y);
      matmul(dy, w, dx);
    } else {
      matmul(x, (way == Way::dense ? dense : w.dequantize()).t(), y);
      matmul(dy, way == Way::dense ? dense : w.dequantize(), dx);
    }
  }
  state.counters["flops"] = benchmark::Counter(
      4.0 * static_cast<double>(tokens * shape.in * shape.out * state.iterations()), benchmark::Counter::kIsRate);
}

void register_all() {
  const auto add = [](const std::string& name, auto&& function) {
    benchmark::RegisterBenchmark(name.c_str(), function)->UseRealTime()->Unit(benchmark::kMillisecond);
  };
  for (const std::string& format : bnb_names())
    add("quantize/" + format, [=](benchmark::State& state) { bench_quantize(state, format); });
  std::vector<std::string> types = bnb_names();
  for (const char* type : {"F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                           "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ2_XS", "IQ1_S", "MXFP4", "TQ2_0"})
    types.emplace_back(type);
  for (const std::string& type : types) {
    add("dequantize/" + type, [=](benchmark::State& state) { bench_dequantize(state, type); });
    add("dequantize_cached/" + type, [=](benchmark::State& state) { bench_dequantize_cached(state, type); });
  }
  for (const char* type : {"F32", "Q4_1", "Q8_0", "Q4_K", "nf4_dq"})
    for (const Shape& shape : shapes)
      for (const int64_t tokens : {1, 16, 256, 1024})
        for (const auto& [way, name] : {std::pair{Way::tiles, "tiles"}, {Way::whole, "whole"}, {Way::dense, "dense"}})
          if (shape.in % 256 == 0 || std::string_view(type) != "Q4_K")
            add(fmt::format("product/{}/{}/{}/{}", type, shape.name, tokens, name),
                [=, way = way](benchmark::State& state) { bench_product(state, type, shape, tokens, way); });
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
