// One decoder block of the llama family: x + attention(norm(x)), then + mlp(norm(that)).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/attention.h"
#include "models/linear.h"
#include "models/rope.h"

namespace retort {

struct Block {
  at::Tensor input_norm, post_attention_norm;  ///< [dim]
  Linear q, k, v, o, gate, up, down;

  std::vector<Linear*> linears() { return {&q, &k, &v, &o, &gate, &up, &down}; }
  bool trainable() const;  ///< some linear has an adapter
};

/// What all blocks of one forward share.
struct Pass {
  std::vector<int64_t> offsets;  ///< of the documents
  Rotary angles;
  AttentionShape shape;
  double norm_eps = 0;
  bool training = false;
  bool checkpointing = false;
  bool offload = false;  ///< with checkpointing: the block's input waits in host memory
  std::function<void(const std::string&, const at::Tensor&)> observer;
};

enum class Gradient {
  none,        ///< no graph
  parameters,  ///< of the adapters only: nothing below this block is trained
  all,         ///< also with respect to x
};

/// x [T, dim] -> [T, dim]. With a graph, `block` must outlive it, and backward works once.
at::Tensor run_block(const Block& block, const std::shared_ptr<const Pass>& pass, const at::Tensor& x,
                     Gradient gradient);

}  // namespace retort
