#include "models/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace retort {
namespace {

/// Rows of one document of x [T, n * head_dim] as [kv_heads, n / kv_heads, tokens, head_dim], without a copy: a
/// key-value head and the query heads that share it are one entry of the kernel's batch.
at::Tensor by_head(const at::Tensor& x, int64_t begin, int64_t end, const AttentionShape& shape) {
  return x.slice(0, begin, end).view({end - begin, shape.kv_heads, -1, shape.head_dim}).permute({1, 2, 0, 3});
}

/// The same for k and v, seen once by every query head of the group (stride 0).
at::Tensor by_group(const at::Tensor& x, int64_t begin, int64_t end, const AttentionShape& shape) {
  return by_head(x, begin, end, shape).expand({-1, shape.heads / shape.kv_heads, -1, -1});
}

double scale(const AttentionShape& shape) { return 1 / std::sqrt(static_cast<double>(shape.head_dim)); }

/// 0 where a token sees another, -inf where it does not, [tokens, tokens]; undefined where plain causality says it all.
std::optional<at::Tensor> window_mask(int64_t tokens, const AttentionShape& shape, const at::TensorOptions& options) {
  if (shape.window == 0 || tokens <= shape.window) return std::nullopt;
  const at::Tensor seen = at::ones({tokens, tokens}, options.dtype(at::kBool)).tril_().triu_(1 - shape.window);
  return at::zeros({tokens, tokens}, options).masked_fill_(seen.logical_not(), -INFINITY);
}

/// Probabilities of the plain formula, for devices without the fused kernel: exp(scores - log-sum-exp).
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const AttentionShape& shape) {
  const int64_t tokens = q.size(2);
  auto mask = window_mask(tokens, shape, q.options());
  if (!mask) mask = at::full({tokens, tokens}, -INFINITY, q.options()).triu_(1);
  return at::matmul(q, k.transpose(-1, -2)).mul_(scale(shape)).add_(*mask);
}

std::tuple<at::Tensor, at::Tensor> document_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                    const AttentionShape& shape) {
  if (q.is_cpu()) {
    const auto mask = window_mask(q.size(2), shape, q.options());
    return at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, !mask, mask, scale(shape));
  }
  const at::Tensor s = scores(q, k, shape), lse = at::logsumexp(s, -1);
  return {at::matmul((s - lse.unsqueeze(-1)).exp_(), v), lse};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> document_backward(const at::Tensor& dout, const at::Tensor& q,
                                                                 const at::Tensor& k, const at::Tensor& v,
                                                                 const at::Tensor& out, const at::Tensor& lse,
                                                                 const AttentionShape& shape) {
  if (q.is_cpu()) {
    const auto mask = window_mask(q.size(2), shape, q.options());
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(dout, q, k, v, out, lse, 0.0, !mask, mask,
                                                                    scale(shape));
  }
  const at::Tensor p = scores(q, k, shape).sub_(lse.unsqueeze(-1)).exp_();
  const at::Tensor dp = at::matmul(dout, v.transpose(-1, -2));
  const at::Tensor ds = p * (dp - (dout * out).sum(-1, true)) * scale(shape);
  return {at::matmul(ds, k), at::matmul(ds.transpose(-1, -2), q), at::matmul(p.transpose(-1, -2), dout)};
}

}  // namespace

Attention attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& offsets,
                    const AttentionShape& shape) {
  Attention result{at::empty_like(q), {}};
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t begin = offsets[d], end = offsets[d + 1];
    auto [out, lse] = document_forward(by_head(q, begin, end, shape), by_group(k, begin, end, shape),
                                       by_group(v, begin, end, shape), shape);
    by_head(result.out, begin, end, shape).copy_(out);
    result.lse.push_back(lse);
  }
  return result;
}

AttentionGrad attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Attention& forward, const std::vector<int64_t>& offsets,
                                 const AttentionShape& shape) {
  AttentionGrad grad{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t begin = offsets[d], end = offsets[d + 1];
    auto [dq, dk, dv] = document_backward(by_head(dout, begin, end, shape), by_head(q, begin, end, shape),
                                          by_group(k, begin, end, shape), by_group(v, begin, end, shape),
                                          by_head(forward.out, begin, end, shape), forward.lse[d], shape);
    by_head(grad.dq, begin, end, shape).copy_(dq);
    by_head(grad.dk, begin, end, shape).copy_(dk.sum(1, true));  // a key-value head serves a group of query heads
    by_head(grad.dv, begin, end, shape).copy_(dv.sum(1, true));
  }
  return grad;
}

}  // namespace retort
