// docs/memory.md's budget of a 7B model on a GPU: the plan of a model that exists on paper only.
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/progress.h"
#include "tests/trainer/fake.h"
#include "trainer/optimizer.h"
#include "trainer/plan.h"

namespace retort {
namespace {

/// Llama 2 7B in NF4 with double quantization on a device that has no memory. Weights of one shape share their bytes.
class PaperModel : public FakeModel {
 public:
  PaperModel() {
    config_.vocab = 32000;
    config_.dim = 4096;
    config_.ffn = 11008;
    config_.layers = 32;
    config_.heads = config_.kv_heads = 32;
    config_.head_dim = 128;
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      const std::string block = fmt::format("model.layers.{}.", layer);
      for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) add(block + "self_attn." + name, 4096, 4096);
      for (const char* name : {"gate_proj", "up_proj"}) add(block + "mlp." + name, 4096, 11008);
      add(block + "mlp.down_proj", 11008, 4096);
    }
    quantized = bytes_;
    const at::Tensor dense = at::empty({config_.vocab, config_.dim}, at::device(at::kMeta).dtype(at::kBFloat16));
    linears_.push_back(
        {.name = "lm_head", .in = config_.dim, .out = config_.vocab, .weight = dense, .bias = {}, .adapter = {}});
    unquantized = 2 * static_cast<int64_t>(dense.nbytes()) + (2 * config_.layers + 1) * config_.dim * 2;
    bytes_ += unquantized;
  }
  const ModelConfig& config() const override { return config_; }
  at::ScalarType dtype() const override { return at::kBFloat16; }
  at::Device device() const override { return at::kMeta; }
  std::vector<Linear*> linears() override {
    std::vector<Linear*> all;
    for (Linear& linear : linears_) all.push_back(&linear);
    return all;
  }
  int64_t weight_bytes() const override { return bytes_; }

  int64_t quantized = 0, unquantized = 0;  ///< bytes

 private:
  void add(const std::string& name, int64_t in, int64_t out) {
    QuantizedTensor& weight = by_size_[out * in];
    if (weight.shape().empty()) {
      const auto codes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(in * out / 2));
      auto state = std::make_shared<BnbState>();
      state->absmax.assign(static_cast<size_t>(in * out / 64), 1.0f);
      bnb_quantize_scales(*state);
      weight = QuantizedTensor(name, state, {out, in}, *codes, codes);
    }
    linears_.push_back({.name = name,
                        .in = in,
                        .out = out,
                        .weight = FrozenMatrix(weight, at::kBFloat16, at::kMeta),
                        .bias = {},
                        .adapter = {}});
    bytes_ += static_cast<int64_t>(weight.stored_bytes());
  }

  ModelConfig config_;
  std::vector<Linear> linears_;
  std::map<int64_t, QuantizedTensor> by_size_;
  int64_t bytes_ = 0;
};

std::string row(const std::string& what, int64_t bytes) { return fmt::format("| {} | {:.0f} |\n", what, bytes / 1e6); }

}  // namespace

TEST(Budget, SevenBillionInNf4FitIntoEightGigabytesAsTheDocsSay) {
  PaperModel model;
  const AttachReport attached = attach(model, {}, 1);  // r 16 on all linear layers
  EXPECT_EQ(attached.trainable, 39976960);             // PEFT's count for Llama 2 7B
  const EvenData data(1, 2048, 32000);
  std::string table = "| what | MB |\n|---|---:|\n";
  TrainOptions options;
  options.micro_batch_size = 1;
  options.gradient_checkpointing = true;
  const MemoryPlan plan = plan_memory(model, data, nullptr, options, 1);
  const int64_t inputs = 32 * 2048 * 4096 * 2, numbers = 4 * attached.trainable;
  table += row("224 linear layers in NF4 with double quantization, 4.127 bits a weight", model.quantized);
  table += row("embedding, head and norms in bf16", model.unquantized);
  table += row("A and B in f32", numbers);
  table += row("their gradients in f32", numbers);
  table += row("AdamW's two moments in f32", optimizer_state_bytes(trainable_parameters(model), options));
  table += row("inputs of 32 blocks, 2048 × 4096 in bf16", inputs);
  table += row("the last norm's, and what the allocator keeps between uses", plan.activations - inputs);
  table += row("one block run again, its backward, and tiles of dequantized weights", plan.workspace);
  table += row("**sum**", plan.total());
  const std::string budget = table;
  EXPECT_EQ(plan.weights + plan.adapters + plan.activations + plan.workspace, plan.total());
  EXPECT_EQ(plan.weights, model.quantized + model.unquantized);
  EXPECT_LT(plan.total(), 7'000'000'000);  // and 1 GB for CUDA itself

  table = "| instead | MB |\n|---|---:|\n";
  const auto instead = [&](const std::string& what, const auto& change) {
    TrainOptions other = options;
    change(other);
    table += row(what, plan_memory(model, data, nullptr, other, 1).total());
  };
  instead("no checkpointing", [](TrainOptions& o) { o.gradient_checkpointing = false; });
  instead("each second block", [](TrainOptions& o) { o.gradient_checkpointing_every = 2; });
  instead("`activation_offloading: true`", [](TrainOptions& o) { o.activation_offloading = true; });
  for (const char* name : {"adamw_8bit", "lion", "muon", "adafactor", "sgd", "paged_adamw"})
    instead(fmt::format("`optimizer: {}`", name), [&](TrainOptions& o) { o.optimizer = name; });

  const std::string docs = read_text(RETORT_SOURCE_DIR "/docs/memory.md");
  for (const std::string& part : {budget, table})
    EXPECT_NE(docs.find(part), std::string::npos) << "docs/memory.md should say\n" << part;
}

TEST(Plan, AdaptersAreParametersGradientsAndEachOptimizersState) {
  PaperModel model;
  attach(model, {}, 1);
  const EvenData data(1, 64, 32000);
  const std::vector<Parameter> parameters = trainable_parameters(model);
  for (const std::string& name : optimizer_names()) {
    TrainOptions options;
    options.optimizer = name;
    const int64_t state = is_paged(name) ? 0 : optimizer_state_bytes(parameters, options);
    EXPECT_EQ(plan_memory(model, data, nullptr, options, 1).adapters, 2 * 4 * int64_t{39976960} + state) << name;
  }
}

}  // namespace retort
