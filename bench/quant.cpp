// bitsandbytes' formats: bytes of f32 a second, quantized and dequantized again, at the shape of a 7B model's layer.
//   quant --benchmark_filter=quantize        OMP_NUM_THREADS sets the threads
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "quant/quantized_tensor.h"

namespace retort {
namespace {

constexpr int64_t rows = 4096, columns = 11008;

const at::Tensor& weights() {
  static const at::Tensor all = at::randn({rows, columns});
  return all;
}

const BnbOptions formats[] = {bnb_options("nf4"), bnb_options("nf4_dq"), bnb_options("fp4"), bnb_options("int8"),
                              bnb_options("int8_blocks")};

void bench_quantize(benchmark::State& state) {
  const BnbOptions& options = formats[state.range(0)];
  const std::span all(weights().const_data_ptr<float>(), static_cast<size_t>(weights().numel()));
  for (auto _ : state) benchmark::DoNotOptimize(bnb_quantize("w", all, columns, options).codes.data());
  state.SetBytesProcessed(static_cast<int64_t>(weights().nbytes()) * state.iterations());
  state.SetLabel(bnb_name(options));
}
BENCHMARK(bench_quantize)->Name("quantize")->DenseRange(0, 4)->UseRealTime()->Unit(benchmark::kMillisecond);

void bench_dequantize(benchmark::State& state) {
  const BnbOptions& options = formats[state.range(0)];
  const std::span all(weights().const_data_ptr<float>(), static_cast<size_t>(weights().numel()));
  const auto made = std::make_shared<BnbWeights>(bnb_quantize("w", all, columns, options));
  const std::shared_ptr<const BnbState> scales(made, &made->state);
  const QuantizedTensor tensor("w", scales, {rows, columns}, made->codes, made);
  const at::Tensor out = at::empty({rows, columns});
  for (auto _ : state) tensor.dequantize_rows(0, rows, out);
  state.SetBytesProcessed(static_cast<int64_t>(out.nbytes()) * state.iterations());
  state.SetLabel(bnb_name(options));
}
BENCHMARK(bench_dequantize)->Name("dequantize")->DenseRange(0, 4)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace retort

BENCHMARK_MAIN();
