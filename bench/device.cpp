// Everything that needs a GPU, checked and timed in one command; meant to end within 10 minutes.
//   device                     all of it, with a random model of 7B's shape and 32 layers
//   device --layers 2          less memory and time
//   device --device cpu --layers 1 --tokens 64 --small     what can run without a GPU, to try the program itself
// Prints one JSON object; exit code 1 when a check failed. What must hold:
//   weights  kernels give the host's weights bit for bit, in f32, f16 and bf16, by rows and by gathered rows
//   products few tokens in the blocks and many by tiles agree with f64 on the host
//   memory   a product leaves nothing behind, and takes at most a tile and its result meanwhile
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>
#include <ggml.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstring>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/json.h"
#include "models/causal_lm.h"
#include "models/matmul.h"
#include "models/quantized_matmul.h"
#include "trainer/optimizer.h"

namespace retort {
namespace {

struct DeviceOptions {
  std::string device = "cuda";
  int64_t layers = 32, tokens = 2048, steps = 4;
  bool small = false;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Bench {
 public:
  explicit Bench(const DeviceOptions& options)
      : options_(options), device_(options.device), type_(device_.is_cuda() ? at::kBFloat16 : at::kFloat) {}

  Json run() {
    if (device_.is_cuda() && !at::hasCUDA())
      fail(Exit::unavailable, "no CUDA device: is the driver there, and was this built with CUDA=on?");
    report_["kernels"] = kernels::built();
    rates();
    for (const QuantizedTensor& tensor : tensors(options_.small ? 64 : 4096, options_.small ? 512 : 4096))
      weight(tensor);
    for (const char* base : {"NF4_DQ", "BF16"}) step(base);
    report_["failed"] = failed_;
    return report_;
  }
  bool passed() const { return failed_.empty(); }

 private:
  void wait() const {
    if (device_.is_cuda()) at::empty({1}, device_).fill_(0).item<float>();
  }

  /// Best seconds of one call.
  template <typename Call>
  double seconds(const Call& call) const {
    double best = 1e9;
    for (int round = 0; round < 4; ++round) {
      const int calls = round == 0 ? 1 : options_.small ? 2 : 20;
      wait();
      const double start = now();
      for (int i = 0; i < calls; ++i) call();
      wait();
      if (round > 0) best = std::min(best, (now() - start) / calls);
    }
    return best;
  }

  int64_t allocated() const { return stats().current; }
  int64_t peak() const { return stats().peak; }
  c10::CachingAllocator::Stat stats() const {
    if (!device_.is_cuda()) return {};
    return c10::getDeviceAllocator(device_.type())->getDeviceStats(0).allocated_bytes[0];
  }
  void reset_peak() const {
    if (device_.is_cuda()) c10::getDeviceAllocator(device_.type())->resetPeakStats(0);
  }

  void check(bool holds, const std::string& what) {
    if (!holds) failed_.push_back(what);
  }

  /// The ceilings: matrix products of the compute type and copies in device memory.
  void rates() {
    const int64_t n = options_.small ? 256 : 8192;
    const at::Tensor a = at::randn({n, n}, device_).to(type_), b = at::randn({n, n}, device_).to(type_);
    const at::Tensor c = at::empty_like(a);
    matmul_flops_ = 2.0 * static_cast<double>(n * n * n) / seconds([&] { matmul(a, b, c); });
    const at::Tensor from =
        at::empty({options_.small ? 1 << 20 : 1 << 30}, at::TensorOptions(device_).dtype(at::kByte));
    const at::Tensor to = at::empty_like(from);
    const double copy = seconds([&] { to.copy_(from); });
    report_["ceilings"] = {{"matmul_tflops", matmul_flops_ / 1e12},
                           {"copy_gb_per_second", 2.0 * static_cast<double>(from.nbytes()) / copy / 1e9}};
  }

  static QuantizedTensor owned(int type, int64_t rows, int64_t columns, std::vector<uint8_t> bytes) {
    const auto buffer = std::make_shared<std::vector<uint8_t>>(std::move(bytes));
    return QuantizedTensor("w", type, {rows, columns}, *buffer, buffer);
  }

  /// Normal numbers in every form that has a kernel.
  static std::vector<QuantizedTensor> tensors(int64_t rows, int64_t columns) {
    const at::Tensor dense = at::randn({rows, columns}) * 0.02;
    const auto* floats = dense.const_data_ptr<float>();
    std::vector<QuantizedTensor> all;
    for (const int type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0,
                           GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K}) {
      const auto ggml = static_cast<ggml_type>(type);
      const size_t row = ggml_row_size(ggml, columns);
      std::vector<uint8_t> bytes(row * static_cast<size_t>(rows));
      at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
        ggml_quantize_chunk(ggml, floats, bytes.data(), begin * columns, end - begin, columns, nullptr);
      });
      all.push_back(owned(type, rows, columns, std::move(bytes)));
    }
    const std::span bytes(reinterpret_cast<const uint8_t*>(floats), dense.nbytes());
    const QuantizedTensor f32("w", GGML_TYPE_F32, {rows, columns}, bytes, std::make_shared<at::Tensor>(dense));
    for (const char* name : {"nf4", "nf4_dq", "fp4", "int8", "int8_blocks"})
      all.push_back(bnb_quantized(f32, bnb_options(name)));
    return all;
  }

  static double relative(const at::Tensor& got, const at::Tensor& want) {
    return ((got.cpu().to(at::kDouble) - want).norm() / want.norm()).item<double>();
  }

  /// One weight: its values, its products, what they take, how fast they are.
  void weight(const QuantizedTensor& tensor) {
    const std::string name = tensor.type_name();
    const int64_t rows = tensor.rows(), columns = tensor.columns();
    const FrozenMatrix frozen(tensor, type_, device_);
    const at::Tensor exact = tensor.dequantize(at::kDouble);
    Json entry = {{"bytes", frozen.bytes()}};
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const FrozenMatrix matrix(tensor, type, device_);
      const at::Tensor want = tensor.dequantize(type), ids = at::tensor({rows - 1, int64_t{0}, rows / 2}, at::kLong);
      check(at::equal(matrix().cpu(), want), fmt::format("{}: weights in {}", name, c10::toString(type)));
      check(at::equal(matrix.rows(ids).cpu(), want.index_select(0, ids)),
            fmt::format("{}: gathered rows in {}", name, c10::toString(type)));
    }
    const at::Tensor whole = frozen();
    const double dequantize = seconds([&] { frozen(); });
    entry["dequantize_gb_per_second"] =
        static_cast<double>(frozen.bytes() + static_cast<int64_t>(whole.nbytes())) / dequantize / 1e9;
    for (const int64_t tokens : {int64_t{1}, int64_t{4}, int64_t{16}, options_.tokens}) {
      const at::Tensor x = at::randn({tokens, columns}, device_).to(type_), y = at::empty({tokens, rows}, x.options());
      const at::Tensor dy = at::randn_like(y), dx = at::empty_like(x);
      reset_peak();
      const int64_t before = allocated();
      frozen.forward(x, y);
      frozen.backward(dy, dx);
      wait();
      check(allocated() == before, fmt::format("{}: a product of {} tokens keeps memory", name, tokens));
      const int64_t taken = peak() - before, allowed = tile_bytes(columns, type_, device_) + (int64_t{1} << 20);
      check(!device_.is_cuda() || taken <= allowed,
            fmt::format("{}: products of {} tokens take {} bytes, allowed {}", name, tokens, taken, allowed));
      const double rounding = type_ == at::kFloat ? 1e-5 : 1e-2;
      check(relative(y, at::mm(x.cpu().to(at::kDouble), exact.t())) < rounding,
            fmt::format("{}: y = x Wᵀ of {} tokens", name, tokens));
      check(relative(dx, at::mm(dy.cpu().to(at::kDouble), exact)) < rounding,
            fmt::format("{}: dx = dy W of {} tokens", name, tokens));
      const double quantized = seconds([&] { frozen.forward(x, y); }),
                   dense = seconds([&] { matmul(x, whole.t(), y); });
      entry[fmt::format("tokens_{}", tokens)] = {{"microseconds", quantized * 1e6},
                                                 {"dense_microseconds", dense * 1e6}};
    }
    report_["weights"][name] = entry;
  }

  /// A model of 7B's shape with random weights, which share a buffer on the host.
  class RandomCheckpoint final : public Checkpoint {
   public:
    RandomCheckpoint(ModelConfig config, const std::string& base) : config_(std::move(config)) {
      const auto n = static_cast<size_t>(config_.vocab * config_.dim);
      const at::Tensor numbers = at::randn({static_cast<int64_t>(n)}).mul_(0.02).to(at::kBFloat16);
      codes_ = std::make_shared<std::vector<uint8_t>>(n * 2);  // bf16; the same bytes serve as NF4's codes
      std::memcpy(codes_->data(), numbers.const_data_ptr(), codes_->size());
      ones_ = std::make_shared<std::vector<float>>(static_cast<size_t>(std::max(config_.dim, config_.ffn)), 1.0F);
      if (base != "NF4_DQ") return;
      state_ = std::make_shared<BnbState>();
      state_->absmax.assign(n / 64, 0.05F);
      for (size_t i = 0; i < n / 64; ++i) state_->absmax[i] *= 1 + static_cast<float>(i % 7) / 16;
      bnb_quantize_scales(*state_);
    }
    const ModelConfig& config() const override { return config_; }
    const std::filesystem::path& path() const override { return path_; }
    bool is_gguf() const override { return false; }
    const GgufFile* gguf() const override { return nullptr; }
    std::vector<std::string> names() const override { return {}; }
    bool has(const std::string& name) const override { return name.ends_with(".weight"); }
    std::string hash() const override { return "random"; }
    QuantizedTensor tensor(const std::string& name) const override {
      const auto ends = [&](const char* part) { return name.find(part) != std::string::npos; };
      const int64_t dim = config_.dim, kv = config_.kv_heads * config_.head_dim;
      if (ends("norm")) {
        const std::span bytes(reinterpret_cast<const uint8_t*>(ones_->data()),
                              static_cast<size_t>(dim) * sizeof(float));
        return QuantizedTensor(name, GGML_TYPE_F32, {dim}, bytes, ones_);
      }
      std::vector<int64_t> shape = {dim, dim};
      if (ends("k_proj") || ends("v_proj")) shape = {kv, dim};
      if (ends("gate_proj") || ends("up_proj")) shape = {config_.ffn, dim};
      if (ends("down_proj")) shape = {dim, config_.ffn};
      const bool large = ends("embed_tokens") || ends("lm_head");
      if (large) shape = {config_.vocab, dim};
      const auto n = static_cast<size_t>(shape[0] * shape[1]);
      const std::span<const uint8_t> codes(*codes_);
      // As transformers does, the embedding and the head stay in 16 bits.
      if (!state_ || large) return QuantizedTensor(name, GGML_TYPE_BF16, shape, codes.first(n * 2), codes_);
      auto state = std::make_shared<BnbState>(*state_);
      state->nested.resize((n + 63) / 64);
      state->absmax.resize((state->nested.size() + 255) / 256);
      return QuantizedTensor(name, std::move(state), shape, codes.first(n / 2), codes_);
    }

   private:
    ModelConfig config_;
    std::filesystem::path path_ = "random";
    std::shared_ptr<std::vector<uint8_t>> codes_;
    std::shared_ptr<std::vector<float>> ones_;
    std::shared_ptr<BnbState> state_;
  };

  /// LoRA steps, r 16 on every linear layer, micro-batch 1, with checkpointing.
  void step(const std::string& base) {
    ModelConfig config;
    config.family = config.architecture = "llama";
    config.vocab = options_.small ? 1024 : 32000;
    config.dim = options_.small ? 256 : 4096;
    config.ffn = options_.small ? 512 : 11008;
    config.head_dim = options_.small ? 64 : 128;
    config.heads = config.kv_heads = config.dim / config.head_dim;
    config.layers = options_.layers;
    config.context = 4096;
    reset_peak();
    const RandomCheckpoint checkpoint(config, base);
    const auto model = CausalLM::load(
        checkpoint, {.base = base == "BF16" ? BaseForm::dense : BaseForm::native, .dtype = type_, .device = device_});
    AdapterOptions adapter;
    attach(*model, adapter, 0);
    TrainOptions train;
    Optimizer optimizer(trainable_parameters(*model), train);
    Batch batch;
    batch.offsets = {0, options_.tokens};
    batch.ids = at::randint(config.vocab, {options_.tokens}, at::kLong);
    batch.labels = at::cat({batch.ids.slice(0, 1), at::tensor({int64_t{-1}}, at::kLong)});
    const int64_t weights = allocated();
    double best = 1e9, loss_value = 0;
    for (int64_t i = 0; i < options_.steps; ++i) {
      wait();
      const double start = now();
      optimizer.zero_grad();
      const at::Tensor hidden = model->hidden(batch, {.training = true, .checkpointing = true});
      const at::Tensor loss = model->cross_entropy(hidden, batch.labels).div(options_.tokens);
      loss.backward();
      optimizer.step(1e-4);
      loss_value = loss.item<double>();
      wait();
      if (i > 0) best = std::min(best, now() - start);
    }
    check(std::isfinite(loss_value), base + ": the loss is not finite");
    // Forward, forward again, and the inputs' gradients: no gradient of a frozen weight.
    const auto blocks =
        static_cast<double>(config.layers * (4 * config.dim * config.dim + 3 * config.dim * config.ffn));
    const auto head = static_cast<double>(config.vocab * config.dim);
    const double flops = static_cast<double>(options_.tokens) * (6 * blocks + 4 * head);
    report_["step"][base] = {{"layers", config.layers},
                             {"tokens", options_.tokens},
                             {"seconds", best},
                             {"tokens_per_second", static_cast<double>(options_.tokens) / best},
                             {"loss", loss_value},
                             {"weights_bytes", model->weight_bytes()},
                             {"allocated_before_steps", weights},
                             {"peak_device_bytes", peak()},
                             {"part_of_matmul_rate", flops / best / matmul_flops_}};
    if (device_.is_cuda() && base == "NF4_DQ" && !options_.small)
      check(peak() <= int64_t{8} << 30, fmt::format("a step on NF4 takes {} bytes of device memory", peak()));
  }

  DeviceOptions options_;
  at::Device device_;
  at::ScalarType type_;
  double matmul_flops_ = 0;
  Json report_;
  std::vector<std::string> failed_;
};

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::DeviceOptions o;
  CLI::App app("All GPU checks and timings; prints one JSON object.");
  app.add_option("--device", o.device)->check(CLI::IsMember({"cuda", "cpu"}));
  app.add_option("--layers", o.layers, "of the model of 7B's shape")->check(CLI::PositiveNumber);
  app.add_option("--tokens", o.tokens, "of its micro-batch")->check(CLI::Range(8, 1 << 20));
  app.add_option("--steps", o.steps)->check(CLI::Range(2, 1000));
  app.add_flag("--small", o.small, "small weights and a small model");
  CLI11_PARSE(app, argc, argv);
  try {
    retort::Bench bench(o);
    fmt::print("{}\n", bench.run().dump(2));
    return bench.passed() ? 0 : 1;
  } catch (const retort::Error& error) {
    fmt::print(stderr, "device: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
}
