// The block is one node of the autograd graph. Its forward keeps what its backward, in closed form, cannot cheaply
// compute again; the normed inputs and silu(gate) * up are computed again.
#include "models/block.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "models/rms_norm.h"
#include "models/swiglu.h"

namespace retort {
namespace {

struct Saved {
  at::Tensor x;        ///< the block's input
  at::Tensor q, k, v;  ///< after rope
  Attention attention;
  at::Tensor middle;  ///< x + attention
  at::Tensor gate, up;
  struct {
    Kept q, k, v, o, gate, up, down;
  } adapter;  ///< what each adapter keeps
};

at::Tensor forward(const Block& b, const Pass& pass, const at::Tensor& x, Saved& s) {
  const auto linear = [&](const Linear& layer, const at::Tensor& input, Kept& kept) {
    if (pass.observer) pass.observer(layer.name, input);
    at::Tensor y = at::empty({input.size(0), layer.out}, input.options());
    linear_forward(layer, input, y, pass.training, kept);
    return y;
  };
  s.x = x;
  {
    const at::Tensor normed = rms_norm(x, b.input_norm, pass.norm_eps);
    s.q = linear(b.q, normed, s.adapter.q);
    s.k = linear(b.k, normed, s.adapter.k);
    s.v = linear(b.v, normed, s.adapter.v);
  }
  rotate(s.q, pass.angles);
  rotate(s.k, pass.angles);
  s.attention = attention(s.q, s.k, s.v, pass.offsets, pass.shape);
  s.middle = linear(b.o, s.attention.out, s.adapter.o).add_(x);
  {
    const at::Tensor normed = rms_norm(s.middle, b.post_attention_norm, pass.norm_eps);
    s.gate = linear(b.gate, normed, s.adapter.gate);
    s.up = linear(b.up, normed, s.adapter.up);
  }
  return linear(b.down, swiglu(s.gate, s.up), s.adapter.down).add_(s.middle);
}

/// d loss / dx, or an undefined tensor when it is not wanted.
at::Tensor backward(const Block& b, const Pass& pass, Saved& s, const at::Tensor& dy, bool wants_dx) {
  at::Tensor dmiddle;
  {
    at::Tensor dactivated = at::empty_like(s.gate);
    linear_backward(b.down, swiglu(s.gate, s.up), dy, s.adapter.down, dactivated);
    swiglu_backward(dactivated, s.gate, s.up);
    const at::Tensor &dgate = s.gate, &dup = s.up;
    const at::Tensor normed = rms_norm(s.middle, b.post_attention_norm, pass.norm_eps);
    at::Tensor dnormed = at::empty_like(normed);
    linear_backward(b.gate, normed, dgate, s.adapter.gate, dnormed);
    linear_backward(b.up, normed, dup, s.adapter.up, dnormed, true);
    dmiddle = rms_norm_backward(s.middle, b.post_attention_norm, pass.norm_eps, dnormed, dy);
  }
  s.gate = s.up = s.middle = at::Tensor();
  at::Tensor dattention = at::empty_like(s.attention.out);
  linear_backward(b.o, s.attention.out, dmiddle, s.adapter.o, dattention);
  auto [dq, dk, dv] = attention_backward(dattention, s.q, s.k, s.v, s.attention, pass.offsets, pass.shape);
  rotate(dq, pass.angles, true);
  rotate(dk, pass.angles, true);
  const at::Tensor normed = rms_norm(s.x, b.input_norm, pass.norm_eps);
  const at::Tensor dnormed = wants_dx ? at::empty_like(normed) : at::Tensor();
  linear_backward(b.q, normed, dq, s.adapter.q, dnormed);
  linear_backward(b.k, normed, dk, s.adapter.k, dnormed, true);
  linear_backward(b.v, normed, dv, s.adapter.v, dnormed, true);
  if (!wants_dx) return {};
  return rms_norm_backward(s.x, b.input_norm, pass.norm_eps, dnormed, dmiddle);
}

/// A copy that the host holds while the device goes on; `x` itself when it is there already.
at::Tensor to_host(const at::Tensor& x) {
  if (x.is_cpu()) return x;
  return at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true)).copy_(x, /*non_blocking=*/true);
}

struct Kept : torch::CustomClassHolder {
  Kept(const Block& b, std::shared_ptr<const Pass> p, bool dx) : block(b), pass(std::move(p)), wants_dx(dx) {}
  const Block& block;
  std::shared_ptr<const Pass> pass;
  bool wants_dx;
  Saved saved;
  bool used = false;
};

struct BlockFunction : torch::autograd::Function<BlockFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const Block* block,
                            const std::shared_ptr<const Pass>& pass, bool wants_dx) {
    auto kept = c10::make_intrusive<Kept>(*block, pass, wants_dx);
    const at::Tensor y = retort::forward(*block, *pass, x, kept->saved);
    if (pass->checkpointing) {
      kept->saved = Saved();
      kept->saved.x = pass->offload ? to_host(x) : x;
    }
    ctx->saved_data["kept"] = c10::IValue::make_capsule(kept);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto capsule = ctx->saved_data["kept"].toCapsule();
    auto& kept = static_cast<Kept&>(*capsule);
    if (kept.used) fail(Exit::internal, "{}: backward ran twice through one forward", kept.block.q.name);
    kept.used = true;
    Saved saved = std::move(kept.saved);  // freed when this block is done, not when the whole graph is
    if (kept.pass->checkpointing) {
      const at::Tensor x = saved.x.to(gradients[0].device(), /*non_blocking=*/true);
      retort::forward(kept.block, *kept.pass, x, saved);
    }
    return {retort::backward(kept.block, *kept.pass, saved, gradients[0].contiguous(), kept.wants_dx), at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool Block::trainable() const {
  for (const Linear* linear : {&q, &k, &v, &o, &gate, &up, &down})
    if (linear->adapter) return true;
  return false;
}

at::Tensor run_block(const Block& block, const std::shared_ptr<const Pass>& pass, const at::Tensor& x,
                     Gradient gradient) {
  if (gradient != Gradient::none) return BlockFunction::apply(x, &block, pass, gradient == Gradient::all);
  const at::NoGradGuard no_grad;
  Saved unused;
  return forward(block, *pass, x, unused);
}

}  // namespace retort
