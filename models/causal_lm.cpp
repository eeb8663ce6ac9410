#include "models/causal_lm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <ggml.h>

#include <utility>

#include "core/cpu.h"
#include "core/error.h"
#include "models/block.h"
#include "models/cross_entropy.h"
#include "models/frozen_matrix.h"
#include "models/rms_norm.h"

namespace retort {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FinalNorm : torch::autograd::Function<FinalNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    return rms_norm(x, weight, eps);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const double eps = ctx->saved_data["eps"].toDouble();
    return {rms_norm_backward(saved[0], saved[1], eps, gradients[0].contiguous(), {}), at::Tensor(), at::Tensor()};
  }
};

class DecoderLM final : public CausalLM {
 public:
  DecoderLM(const Checkpoint& checkpoint, const LoadOptions& options)
      : config_(checkpoint.config()), options_(options) {
    embedding_.vocab = config_.vocab;
    embedding_.dim = config_.dim;
    embedding_.weight = frozen(checkpoint, embedding_.name + ".weight");
    blocks_.resize(static_cast<size_t>(config_.layers));
    for (size_t i = 0; i < blocks_.size(); ++i) load_block(checkpoint, fmt::format("model.layers.{}.", i), blocks_[i]);
    norm_ = dense(checkpoint, "model.norm.weight");
    head_ = {"lm_head", config_.dim, config_.vocab, {}, {}, {}};
    head_.weight = config_.tied ? embedding_.weight : frozen(checkpoint, "lm_head.weight");
    if (checkpoint.has("lm_head.bias")) head_.bias = dense(checkpoint, "lm_head.bias");
  }

  const ModelConfig& config() const override { return config_; }
  at::ScalarType dtype() const override { return options_.dtype; }
  at::Device device() const override { return options_.device; }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t parameter_count() const override { return parameter_count_; }
  void observe(std::function<void(const std::string&, const at::Tensor&)> observer) override {
    observer_ = std::move(observer);
  }

  std::vector<Linear*> linears() override {
    std::vector<Linear*> all;
    for (Block& block : blocks_)
      for (Linear* linear : block.linears()) all.push_back(linear);
    all.push_back(&head_);
    return all;
  }

  Embedding& embedding() override { return embedding_; }

  at::Tensor hidden(const Batch& batch, const ForwardOptions& options) override {
    check(batch);
    const auto pass = std::make_shared<const Pass>(Pass{
        .offsets = batch.offsets,
        .angles = rotary(config_, batch.offsets, options_.dtype, options_.device),
        .shape = {config_.heads, config_.kv_heads, config_.head_dim, config_.sliding_window},
        .norm_eps = config_.norm_eps,
        .training = options.training,
        .observer = observer_,
    });
    std::shared_ptr<const Pass> checkpointed = pass;
    if (options.checkpointing) {
      Pass again = *pass;
      again.checkpointing = true;
      again.offload = options.offload;
      checkpointed = std::make_shared<const Pass>(std::move(again));
    }
    const bool graph = options.training && at::GradMode::is_enabled();
    const size_t lowest = graph ? lowest_trainable() : blocks_.size();
    at::Tensor x = embed(embedding_, batch.ids, graph);
    const bool from_below = x.requires_grad();  // the embedding is trained
    for (size_t i = 0; i < blocks_.size(); ++i) {
      // Autograd runs a node's backward only if some input requires grad: the lowest trainable block's input is made
      // to.
      if (i == lowest && !from_below) x.requires_grad_(true);
      const bool every = i % static_cast<size_t>(std::max<int64_t>(1, options.checkpoint_every)) == 0;
      x = run_block(blocks_[i], every ? checkpointed : pass, x,
                    from_below || i > lowest ? Gradient::all
                    : i == lowest            ? Gradient::parameters
                                             : Gradient::none);
      if (options.after_block) options.after_block(static_cast<int64_t>(i), x);
    }
    if (graph && lowest == blocks_.size() && head_.adapter && !from_below) x.requires_grad_(true);
    if (x.requires_grad()) return FinalNorm::apply(x, norm_, config_.norm_eps);
    return rms_norm(x, norm_, config_.norm_eps);
  }

  at::Tensor logits(const at::Tensor& hidden) override {
    observe_head(hidden);
    return head_logits(head_, hidden);
  }

  at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& labels) override {
    if (labels.dim() != 1 || labels.size(0) != hidden.size(0) || labels.scalar_type() != at::kLong)
      fail(Exit::internal, "labels must be i64 [{}], one a row of the hidden states", hidden.size(0));
    if (labels.numel() > 0 && labels.max().item<int64_t>() >= config_.vocab)
      fail(Exit::bad_input, "a label is {}, but the vocabulary has {} tokens", labels.max().item<int64_t>(),
           config_.vocab);
    observe_head(hidden);
    return linear_cross_entropy(head_, hidden, labels);
  }

 private:
  FrozenMatrix frozen(const Checkpoint& checkpoint, const std::string& name) {
    const QuantizedTensor stored = checkpoint.tensor(name);
    parameter_count_ += stored.elements();
    FrozenMatrix matrix(stored, options_.dtype, options_.device);
    if (in_place(stored))
      matrix = view(stored);
    else if (options_.base == BaseForm::dense)
      matrix = matrix();
    weight_bytes_ += matrix.bytes();
    return matrix;
  }

  /// Whether the file's bytes are the weight as it is computed with.
  bool in_place(const QuantizedTensor& stored) const {
    return stored.type() == GGML_TYPE_F32 && options_.dtype == at::kFloat && options_.device.is_cpu();
  }

  /// The file's own pages as a tensor, which keeps the mapping. Nothing writes to a frozen weight.
  static at::Tensor view(const QuantizedTensor& stored) {
    const auto* data = reinterpret_cast<const float*>(stored.bytes().data());
    return at::from_blob(
        const_cast<float*>(data), stored.shape(), [stored](void*) {}, at::kFloat);
  }

  at::Tensor dense(const Checkpoint& checkpoint, const std::string& name) {
    const at::Tensor weight = checkpoint.tensor(name).dequantize(options_.dtype).to(options_.device);
    parameter_count_ += weight.numel();
    weight_bytes_ += static_cast<int64_t>(weight.nbytes());
    return weight;
  }

  void load_block(const Checkpoint& checkpoint, const std::string& prefix, Block& block) {
    block.input_norm = dense(checkpoint, prefix + "input_layernorm.weight");
    block.post_attention_norm = dense(checkpoint, prefix + "post_attention_layernorm.weight");
    const int64_t dim = config_.dim, queries = config_.heads * config_.head_dim,
                  keys = config_.kv_heads * config_.head_dim, ffn = config_.ffn;
    const auto load = [&](Linear& linear, const char* name, int64_t in, int64_t out) {
      linear.name = prefix + name;
      linear.in = in;
      linear.out = out;
      linear.weight = frozen(checkpoint, linear.name + ".weight");
      if (checkpoint.has(linear.name + ".bias")) linear.bias = dense(checkpoint, linear.name + ".bias");
    };
    load(block.q, "self_attn.q_proj", dim, queries);
    load(block.k, "self_attn.k_proj", dim, keys);
    load(block.v, "self_attn.v_proj", dim, keys);
    load(block.o, "self_attn.o_proj", queries, dim);
    load(block.gate, "mlp.gate_proj", dim, ffn);
    load(block.up, "mlp.up_proj", dim, ffn);
    load(block.down, "mlp.down_proj", ffn, dim);
  }

  /// The lowest block with an adapter; blocks below it run without a graph.
  size_t lowest_trainable() const {
    size_t i = 0;
    while (i < blocks_.size() && !blocks_[i].trainable()) ++i;
    return i;
  }

  void check(const Batch& batch) const {
    const auto& offsets = batch.offsets;
    if (offsets.size() < 2 || offsets.front() != 0 || batch.ids.dim() != 1 || batch.ids.scalar_type() != at::kLong ||
        batch.ids.size(0) != offsets.back())
      fail(Exit::internal, "a batch needs i64 ids [T] and document offsets from 0 to T");
    for (size_t d = 0; d + 1 < offsets.size(); ++d)
      if (offsets[d + 1] <= offsets[d]) fail(Exit::internal, "document {} of the batch has no token", d);
    const int64_t low = batch.ids.min().item<int64_t>(), high = batch.ids.max().item<int64_t>();
    if (low < 0 || high >= config_.vocab)
      fail(Exit::bad_input, "token id {} is not in the vocabulary of {} tokens", low < 0 ? low : high, config_.vocab);
  }

  void observe_head(const at::Tensor& hidden) const {
    if (observer_) observer_(head_.name, hidden.detach());
  }

  ModelConfig config_;
  LoadOptions options_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  at::Tensor norm_;
  Linear head_;
  std::function<void(const std::string&, const at::Tensor&)> observer_;
  int64_t weight_bytes_ = 0, parameter_count_ = 0;
};

}  // namespace

std::unique_ptr<CausalLM> CausalLM::load(const Checkpoint& checkpoint, const LoadOptions& options) {
  if (options.dtype == at::kBFloat16 && options.device.is_cpu() && !cpu().avx512_bf16 && !cpu().amx_bf16)
    fail(Exit::usage,
         "dtype bf16: this processor has no bf16 arithmetic, f32 is several times faster here; "
         "use dtype f32 or auto");
  return std::make_unique<DecoderLM>(checkpoint, options);
}

}  // namespace retort
