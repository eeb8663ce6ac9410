// Causal attention of packed documents: each document is a call of its own, so that none sees another.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace retort {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;  ///< a token sees itself and the window - 1 before it; 0: all before it
};

struct Attention {
  at::Tensor out;  ///< [T, heads * head_dim]
  at::Tensor lse;  ///< log-sum-exp of each query's scores [kv_heads, T, heads / kv_heads]
};

/// q [T, heads * head_dim]; k, v [T, kv_heads * head_dim]; document d is the rows offsets[d] .. offsets[d + 1].
Attention attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& offsets,
                    const AttentionShape& shape);

struct AttentionGrad {
  at::Tensor dq, dk, dv;  ///< shapes of q, k, v
};
AttentionGrad attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Attention& forward, const std::vector<int64_t>& offsets,
                                 const AttentionShape& shape);

}  // namespace retort
