// A frozen linear layer and the place where an adapter attaches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/frozen_matrix.h"

namespace retort {

/// A trainable tensor with the name it has in the adapter's file, without the "base_model.model." prefix.
struct Parameter {
  std::string name;
  at::Tensor tensor;  ///< leaf, requires_grad; its gradient accumulates in tensor.grad()
};

/// W + b a, scale included; undefined where an adapter has no such form.
struct LowRank {
  at::Tensor a, b;  ///< f32 [r, in] and [out, r]
};

struct Linear;

/// What an adapter's backward needs of its forward, besides x.
using Kept = std::vector<at::Tensor>;

/// What changes a frozen linear layer. forward and backward are explicit: the block that owns the layer runs them
/// inside its own closed-form backward. They take over the whole product, because some kinds scale its input or output;
/// base_forward and base_backward are the frozen part. One file a kind in adapters/kinds/.
class LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;
  /// y = what the adapted layer gives for x, without its bias; x [T, in], y [T, out] (may be a strided slice).
  virtual void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept) = 0;
  /// dx = d loss / dx, or dx += with `add` (undefined: not wanted), and the parameters' gradients += theirs.
  virtual void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept,
                        const at::Tensor& dx, bool add) = 0;
  /// Numbers that forward keeps of each token for backward; for the memory plan.
  virtual int64_t kept_of_a_token() const { return 0; }
  /// The weight that a merge gives, same shape and dtype as `weight` (f32 or f64) [out, in].
  virtual at::Tensor merged(const at::Tensor& weight) const = 0;
  /// The bias of the adapted layer, in training and in a merge; either may be undefined.
  virtual at::Tensor bias(const at::Tensor& base) const { return base; }
  virtual std::vector<Parameter> parameters() const = 0;
  /// What all layers compute with and none trains, as the adapter's file names it.
  virtual std::vector<Parameter> shared() const { return {}; }
  /// The parameters as the adapter's file holds them: each lies in the first rows and columns of its tensor there.
  virtual std::vector<Parameter> saved() const { return parameters(); }
  /// The change of W as a product; what adapters for llama.cpp hold.
  virtual LowRank low_rank() const { return {}; }
  /// Names the micro-batch of the next forward: what is random in it is a function of this number, so it repeats when
  /// asked again.
  virtual void set_micro_step(uint64_t) {}
};

/// y = x Wᵀ + bias + adapter(x), with W and bias frozen.
struct Linear {
  std::string name;  ///< Hugging Face's module name: "model.layers.0.self_attn.q_proj"
  int64_t in = 0, out = 0;
  FrozenMatrix weight;  ///< [out, in]
  at::Tensor bias;      ///< [out], or undefined
  std::shared_ptr<LinearAdapter> adapter;
};

/// y = x Wᵀ, frozen part alone and without bias.
void base_forward(const Linear& linear, const at::Tensor& x, const at::Tensor& y);

/// dx = dy W, or dx += with `add` (dx undefined: not wanted).
void base_backward(const Linear& linear, const at::Tensor& dy, const at::Tensor& dx, bool add);

/// y [T, out] = x Wᵀ + bias, adapted, for x [T, in]; `kept` becomes what the adapter's backward needs.
void linear_forward(const Linear& linear, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept);

/// dx = d loss / dx, or dx += with `add` (dx undefined: not wanted), and the adapter's parameters get their gradients.
void linear_backward(const Linear& linear, const at::Tensor& x, const at::Tensor& dy, const Kept& kept,
                     const at::Tensor& dx, bool add = false);

}  // namespace retort
