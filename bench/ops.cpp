// The decoder's operators one by one, at SmolLM2-135M's shape: 1024 tokens, dim 576, 9 heads on 3, ffn 1536, vocabulary
// 49152.
//   ops --benchmark_filter=attention        OMP_NUM_THREADS sets the threads
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "models/attention.h"
#include "models/cross_entropy.h"
#include "models/matmul.h"
#include "models/rms_norm.h"
#include "models/rope.h"
#include "models/swiglu.h"

namespace retort {
namespace {

constexpr int64_t tokens = 1024, dim = 576, kv_dim = 192, ffn = 1536, vocab = 49152;
const AttentionShape shape{.heads = 9, .kv_heads = 3, .head_dim = 64};

/// Reports operations a second from a count for one iteration.
void count_flops(benchmark::State& state, double flops) {
  state.counters["flops"] =
      benchmark::Counter(flops * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void count_bytes(benchmark::State& state, int64_t bytes) { state.SetBytesProcessed(bytes * state.iterations()); }

/// y = x Wᵀ with in, out as arguments; `Blas`: through ATen's BLAS, for comparison.
template <bool Blas>
void bench_linear(benchmark::State& state) {
  const int64_t in = state.range(0), out = state.range(1);
  const at::Tensor x = at::randn({tokens, in}), w = at::randn({out, in});
  at::Tensor y = at::empty({tokens, out});
  for (auto _ : state) {
    if (Blas)
      at::mm_out(y, x, w.t());
    else
      matmul(x, w.t(), y);
  }
  count_flops(state, 2.0 * tokens * static_cast<double>(in * out));
}
BENCHMARK(bench_linear<false>)->Name("linear")->ArgsProduct({{dim, ffn}, {16, kv_dim, dim, ffn}})->UseRealTime();
BENCHMARK(bench_linear<true>)->Name("linear_blas")->ArgsProduct({{dim, ffn}, {16, kv_dim, dim, ffn}})->UseRealTime();

void bench_rms_norm_forward(benchmark::State& state) {
  const at::Tensor x = at::randn({tokens, dim}), w = at::randn({dim});
  for (auto _ : state) benchmark::DoNotOptimize(rms_norm(x, w, 1e-5));
  count_bytes(state, 2 * static_cast<int64_t>(x.nbytes()));
}
BENCHMARK(bench_rms_norm_forward)->Name("rms_norm_forward")->UseRealTime();

void bench_rms_norm_backward(benchmark::State& state) {
  const at::Tensor x = at::randn({tokens, dim}), w = at::randn({dim}), dy = at::randn({tokens, dim});
  for (auto _ : state) benchmark::DoNotOptimize(rms_norm_backward(x, w, 1e-5, dy, dy));
  count_bytes(state, 4 * static_cast<int64_t>(x.nbytes()));
}
BENCHMARK(bench_rms_norm_backward)->Name("rms_norm_backward")->UseRealTime();

void bench_swiglu_forward(benchmark::State& state) {
  const at::Tensor gate = at::randn({tokens, ffn}), up = at::randn({tokens, ffn});
  for (auto _ : state) benchmark::DoNotOptimize(swiglu(gate, up));
  count_bytes(state, 3 * static_cast<int64_t>(gate.nbytes()));
}
BENCHMARK(bench_swiglu_forward)->Name("swiglu_forward")->UseRealTime();

void bench_swiglu_backward(benchmark::State& state) {
  at::Tensor gate = at::randn({tokens, ffn}), up = at::randn({tokens, ffn});
  const at::Tensor dy = at::ones({tokens, ffn});
  for (auto _ : state) swiglu_backward(dy, gate, up);
  count_bytes(state, 5 * static_cast<int64_t>(gate.nbytes()));
}
BENCHMARK(bench_swiglu_backward)->Name("swiglu_backward")->UseRealTime();

void bench_rotate_forward(benchmark::State& state) {
  ModelConfig config;
  config.head_dim = shape.head_dim;
  const Rotary angles = rotary(config, {0, tokens}, at::kFloat, at::kCPU);
  at::Tensor q = at::randn({tokens, dim});
  for (auto _ : state) rotate(q, angles);
  count_bytes(state, 2 * static_cast<int64_t>(q.nbytes()));
}
BENCHMARK(bench_rotate_forward)->Name("rotate_forward")->UseRealTime();

std::vector<int64_t> documents_of(int64_t length) {
  std::vector<int64_t> offsets = {0};
  while (offsets.back() < tokens) offsets.push_back(std::min(tokens, offsets.back() + length));
  return offsets;
}

/// 1024 tokens in documents of the argument's length. The operations are those that causality leaves.
void bench_attention_forward(benchmark::State& state) {
  const auto offsets = documents_of(state.range(0));
  const at::Tensor q = at::randn({tokens, dim}), k = at::randn({tokens, kv_dim}), v = at::randn({tokens, kv_dim});
  for (auto _ : state) benchmark::DoNotOptimize(attention(q, k, v, offsets, shape));
  count_flops(state, 2.0 * tokens * static_cast<double>(state.range(0)) * dim);
}
BENCHMARK(bench_attention_forward)
    ->Name("attention_forward")
    ->Arg(16)
    ->Arg(64)
    ->Arg(128)
    ->Arg(256)
    ->Arg(1024)
    ->UseRealTime();

void bench_attention_backward(benchmark::State& state) {
  const auto offsets = documents_of(state.range(0));
  const at::Tensor q = at::randn({tokens, dim}), k = at::randn({tokens, kv_dim}), v = at::randn({tokens, kv_dim});
  const Attention forward = attention(q, k, v, offsets, shape);
  for (auto _ : state) benchmark::DoNotOptimize(attention_backward(q, q, k, v, forward, offsets, shape));
  count_flops(state, 5.0 * tokens * static_cast<double>(state.range(0)) * dim);
}
BENCHMARK(bench_attention_backward)
    ->Name("attention_backward")
    ->Arg(16)
    ->Arg(64)
    ->Arg(128)
    ->Arg(256)
    ->Arg(1024)
    ->UseRealTime();

/// Loss and gradient by the hidden states, in chunks of the argument's tokens.
void bench_cross_entropy(benchmark::State& state) {
  const at::Tensor weight = at::randn({vocab, dim}) / 24, labels = at::randint(vocab, {tokens}, at::kLong);
  Linear head{"lm_head", dim, vocab, weight, {}, {}};
  const at::Tensor x = at::randn({tokens, dim}).requires_grad_(true);
  for (auto _ : state) benchmark::DoNotOptimize(linear_cross_entropy(head, x, labels, state.range(0)));
  count_flops(state, 4.0 * tokens * dim * vocab);
}
BENCHMARK(bench_cross_entropy)->Name("cross_entropy")->Arg(64)->Arg(128)->Arg(256)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace retort

BENCHMARK_MAIN();
