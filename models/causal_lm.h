// A decoder-only language model: frozen weights, linears that adapters attach to, one forward for every use.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/batch.h"
#include "models/checkpoint.h"
#include "models/embedding.h"
#include "models/linear.h"

namespace retort {

enum class BaseForm { native, dense };  ///< native: keep the file's blocks, dequantize when used

struct LoadOptions {
  BaseForm base = BaseForm::native;
  at::ScalarType dtype = at::kFloat;  ///< compute type, and the weights' type when dense
  at::Device device = at::kCPU;
};

/// Per-call switches of forward.
struct ForwardOptions {
  bool training = false;         ///< dropout on, graph kept
  bool checkpointing = false;    ///< keep a block's input only, run the block again in backward
  int64_t checkpoint_every = 1;  ///< that is done to block 0 and each n-th after it
  bool offload = false;          ///< inputs that are kept for it wait in host memory
  /// Called with each block's number from 0 and its output [T, dim], which is differentiable where the blocks' are.
  std::function<void(int64_t block, const at::Tensor& state)> after_block = {};
};

class CausalLM {
 public:
  virtual ~CausalLM() = default;
  static std::unique_ptr<CausalLM> load(const Checkpoint& checkpoint, const LoadOptions& options);

  virtual const ModelConfig& config() const = 0;
  virtual at::ScalarType dtype() const = 0;
  virtual at::Device device() const = 0;
  /// Every linear in module order, the head last ("lm_head", also when tied). Adapters attach here.
  virtual std::vector<Linear*> linears() = 0;
  virtual Embedding& embedding() = 0;
  /// Final hidden states after the last norm, [T, dim]; differentiable by the attached adapters' parameters.
  virtual at::Tensor hidden(const Batch& batch, const ForwardOptions& options = {}) = 0;
  /// Logits f32 [n, V] of rows of hidden().
  virtual at::Tensor logits(const at::Tensor& hidden) = 0;
  /// Sum over labels >= 0 of -log p(label), in nats, f32 scalar (f64 for an f64 model); differentiable by hidden.
  /// Computed in chunks of tokens: tokens x vocabulary never exists, and a frozen head gets no gradient.
  virtual at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& labels) = 0;
  /// Called with (linear's name, input [T, in]) in each forward, for importance matrices; empty function: off.
  virtual void observe(std::function<void(const std::string&, const at::Tensor&)> observer) = 0;
  /// Bytes the frozen weights hold in memory.
  virtual int64_t weight_bytes() const = 0;
  /// Number of frozen parameters, norms and biases included; a tied head counts once.
  virtual int64_t parameter_count() const = 0;
};

}  // namespace retort
