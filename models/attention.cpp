// Flash attention (https://arxiv.org/abs/2205.14135) with whole rows of scores: a block of queries against all keys
// that it sees. The query heads that share a key-value head are rows of the same products, so that keys and values are
// never repeated.
#include "models/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <functional>

#include "models/matmul.h"
#include "models/simd.h"

namespace retort {
namespace {

/// Query tokens a block: small enough that its scores stay in the cache, large enough for the products.
constexpr int64_t block_tokens = 64;

/// The scores of a block: rows are (token, head of the group), columns the keys first_key .. first_key + columns.
struct Scores {
  int64_t first_token, rows, group, first_key, columns, window;
  /// Columns that row r sees: begin .. end.
  RETORT_INLINE int64_t end(int64_t r) const { return first_token + r / group + 1 - first_key; }
  RETORT_INLINE int64_t begin(int64_t r) const { return window && end(r) > window ? end(r) - window : 0; }
};

/// Scores become probabilities, and lse their log-sum-exp.
template <typename T>
RETORT_INLINE void softmax_rows(T* s, T* lse, const Scores& shape) {
  for (int64_t r = 0; r < shape.rows; ++r, s += shape.columns) {
    const int64_t begin = shape.begin(r), end = shape.end(r);
    const T top = simd_max(s + begin, end - begin);
    const double sum = simd_exp_sum(s + begin, end - begin, top);
    const T scale = static_cast<T>(1 / sum);
    lse[r] = top + static_cast<T>(std::log(sum));
    for (int64_t i = 0; i < begin; ++i) s[i] = 0;
    for (int64_t i = begin; i < end; ++i) s[i] *= scale;
    for (int64_t i = end; i < shape.columns; ++i) s[i] = 0;
  }
}
RETORT_SIMD void softmax(float* s, float* lse, const Scores& shape) { softmax_rows(s, lse, shape); }
RETORT_SIMD void softmax(double* s, double* lse, const Scores& shape) { softmax_rows(s, lse, shape); }

/// Scores become probabilities again.
template <typename T>
RETORT_INLINE void probability_rows(T* s, const T* lse, const Scores& shape) {
  for (int64_t r = 0; r < shape.rows; ++r, s += shape.columns) {
    const int64_t begin = shape.begin(r), end = shape.end(r);
    const T shift = lse[r];
    for (int64_t i = 0; i < begin; ++i) s[i] = 0;
    for (int64_t i = begin; i < end; ++i) s[i] = simd_exp(s[i] - shift);
    for (int64_t i = end; i < shape.columns; ++i) s[i] = 0;
  }
}
RETORT_SIMD void probabilities(float* s, const float* lse, const Scores& shape) { probability_rows(s, lse, shape); }
RETORT_SIMD void probabilities(double* s, const double* lse, const Scores& shape) { probability_rows(s, lse, shape); }

/// p becomes the scores' gradient, p * (dp - dot(dout, out)); `head_dim` is the length of out's rows.
template <typename T>
RETORT_INLINE void gradient_rows(T* p, const T* dp, const T* dout, const T* out, int64_t head_dim,
                                 const Scores& shape) {
  for (int64_t r = 0; r < shape.rows; ++r, p += shape.columns, dp += shape.columns) {
    const T delta = simd_dot(dout + r * head_dim, out + r * head_dim, head_dim);
    for (int64_t i = 0; i < shape.columns; ++i) p[i] *= dp[i] - delta;
  }
}
RETORT_SIMD void score_gradient(float* p, const float* dp, const float* dout, const float* out, int64_t head_dim,
                                const Scores& shape) {
  gradient_rows(p, dp, dout, out, head_dim, shape);
}
RETORT_SIMD void score_gradient(double* p, const double* dp, const double* dout, const double* out, int64_t head_dim,
                                const Scores& shape) {
  gradient_rows(p, dp, dout, out, head_dim, shape);
}

/// True where a row does not see a column, for devices without the loops above.
at::Tensor hidden(const Scores& shape, at::Device device) {
  const at::Tensor row = at::arange(shape.rows, at::TensorOptions(at::kLong).device(device)).unsqueeze(1);
  const at::Tensor column = at::arange(shape.columns, row.options()).unsqueeze(0);
  const at::Tensor end = at::floor_divide(row, shape.group) + (shape.first_token + 1 - shape.first_key);
  const at::Tensor after = column >= end;
  return shape.window ? after.logical_or(column < end - shape.window) : after;
}

void softmax(at::Tensor s, at::Tensor lse, const Scores& shape) {
  if (has_loops(s)) {
    AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "softmax", [&] {
      softmax(s.mutable_data_ptr<scalar_t>(), lse.mutable_data_ptr<scalar_t>(), shape);
    });
    return;
  }
  s.masked_fill_(hidden(shape, s.device()), -INFINITY);
  lse.copy_(at::logsumexp(s, -1));
  s.sub_(lse.unsqueeze(-1)).exp_();
}

void probabilities(at::Tensor s, const at::Tensor& lse, const Scores& shape) {
  if (has_loops(s)) {
    AT_DISPATCH_FLOATING_TYPES(s.scalar_type(), "probabilities", [&] {
      probabilities(s.mutable_data_ptr<scalar_t>(), lse.const_data_ptr<scalar_t>(), shape);
    });
    return;
  }
  s.sub_(lse.unsqueeze(-1)).exp_().masked_fill_(hidden(shape, s.device()), 0);
}

void score_gradient(at::Tensor p, const at::Tensor& dp, const at::Tensor& dout, const at::Tensor& out,
                    const Scores& shape) {
  if (has_loops(p)) {
    AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), "score_gradient", [&] {
      score_gradient(p.mutable_data_ptr<scalar_t>(), dp.const_data_ptr<scalar_t>(), dout.const_data_ptr<scalar_t>(),
                     out.const_data_ptr<scalar_t>(), out.size(1), shape);
    });
    return;
  }
  p.mul_(dp - (dout * out).sum(-1, true));
}

/// One key-value head of one document.
struct Part {
  int64_t begin, end;  ///< its rows
  int64_t head;
};

/// Rows of x [T, heads * head_dim] that belong to the part: [tokens * heads of the group, head_dim], a view where it
/// can be.
at::Tensor strided(const at::Tensor& x, const Part& part, const AttentionShape& shape) {
  return x.slice(0, part.begin, part.end)
      .view({part.end - part.begin, shape.kv_heads, -1, shape.head_dim})
      .select(1, part.head);
}
at::Tensor rows_of(const at::Tensor& x, const Part& part, const AttentionShape& shape) {
  return strided(x, part, shape).reshape({-1, shape.head_dim}).contiguous();
}
void set_rows(const at::Tensor& x, const Part& part, const AttentionShape& shape, const at::Tensor& rows) {
  at::Tensor to = strided(x, part, shape);
  to.copy_(rows.view(to.sizes()));
}

/// Parts in parallel where there are enough of them, else one after another with the threads inside each product.
void for_parts(const std::vector<int64_t>& offsets, const AttentionShape& shape,
               const std::function<void(const Part&)>& each) {
  std::vector<Part> parts;
  for (size_t d = 0; d + 1 < offsets.size(); ++d)
    for (int64_t head = 0; head < shape.kv_heads; ++head) parts.push_back({offsets[d], offsets[d + 1], head});
  const auto count = static_cast<int64_t>(parts.size());
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) each(parts[static_cast<size_t>(i)]);
  };
  if (count >= 2 * at::get_num_threads())
    at::parallel_for(0, count, 1, run);
  else
    run(0, count);
}

/// Calls each(shape of the scores) for the blocks of a document of n tokens.
template <typename Each>
void for_blocks(int64_t n, const AttentionShape& shape, const Each& each) {
  const int64_t group = shape.heads / shape.kv_heads;
  for (int64_t first = 0; first < n; first += block_tokens) {
    const int64_t last = std::min(first + block_tokens, n);
    const int64_t first_key = shape.window ? std::max<int64_t>(0, first + 1 - shape.window) : 0;
    each(Scores{first, (last - first) * group, group, first_key, last - first_key, shape.window});
  }
}

double scale(const AttentionShape& shape) { return 1 / std::sqrt(static_cast<double>(shape.head_dim)); }

/// A buffer's first elements as the scores of a block.
at::Tensor scores_in(const at::Tensor& buffer, const Scores& s) {
  return buffer.slice(0, 0, s.rows * s.columns).view({s.rows, s.columns});
}

}  // namespace

Attention attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& offsets,
                    const AttentionShape& shape) {
  if (q.scalar_type() == at::kBFloat16) {
    Attention wide = attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), offsets, shape);
    return {wide.out.to(at::kBFloat16), wide.lse};
  }
  const int64_t group = shape.heads / shape.kv_heads;
  Attention result{at::empty_like(q), at::empty({shape.kv_heads, q.size(0), group}, q.options())};
  for_parts(offsets, shape, [&](const Part& part) {
    const at::Tensor queries = rows_of(q, part, shape), keys = rows_of(k, part, shape),
                     values = rows_of(v, part, shape);
    const at::Tensor lse = result.lse[part.head].slice(0, part.begin, part.end).view(-1);
    const at::Tensor out = at::empty_like(queries);
    const int64_t n = keys.size(0);
    const at::Tensor buffer = at::empty({std::min(block_tokens, n) * group * n}, q.options());
    for_blocks(n, shape, [&](const Scores& s) {
      const int64_t begin = s.first_token * group, end = begin + s.rows;
      const at::Tensor p = scores_in(buffer, s);
      matmul(queries.slice(0, begin, end), keys.slice(0, s.first_key, s.first_key + s.columns).t(), p, false,
             scale(shape));
      softmax(p, lse.slice(0, begin, end), s);
      matmul(p, values.slice(0, s.first_key, s.first_key + s.columns), out.slice(0, begin, end));
    });
    set_rows(result.out, part, shape, out);
  });
  return result;
}

AttentionGrad attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const Attention& forward, const std::vector<int64_t>& offsets,
                                 const AttentionShape& shape) {
  if (q.scalar_type() == at::kBFloat16) {
    const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat); };
    AttentionGrad grad =
        attention_backward(wide(dout), wide(q), wide(k), wide(v), {wide(forward.out), forward.lse}, offsets, shape);
    return {grad.dq.to(at::kBFloat16), grad.dk.to(at::kBFloat16), grad.dv.to(at::kBFloat16)};
  }
  const int64_t group = shape.heads / shape.kv_heads;
  AttentionGrad grad{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  for_parts(offsets, shape, [&](const Part& part) {
    const at::Tensor queries = rows_of(q, part, shape), keys = rows_of(k, part, shape),
                     values = rows_of(v, part, shape);
    const at::Tensor out = rows_of(forward.out, part, shape), dout_rows = rows_of(dout, part, shape);
    const at::Tensor lse = forward.lse[part.head].slice(0, part.begin, part.end).view(-1);
    const at::Tensor dq = at::empty_like(queries), dk = at::zeros_like(keys), dv = at::zeros_like(values);
    const int64_t n = keys.size(0);
    const at::Tensor buffer = at::empty({2, std::min(block_tokens, n) * group * n}, q.options());
    for_blocks(n, shape, [&](const Scores& s) {
      const int64_t begin = s.first_token * group, end = begin + s.rows;
      const auto seen = [&](const at::Tensor& x) { return x.slice(0, s.first_key, s.first_key + s.columns); };
      const at::Tensor p = scores_in(buffer[0], s), dp = scores_in(buffer[1], s);
      const at::Tensor q_block = queries.slice(0, begin, end), dout_block = dout_rows.slice(0, begin, end);
      matmul(q_block, seen(keys).t(), p, false, scale(shape));
      probabilities(p, lse.slice(0, begin, end), s);
      matmul(p.t(), dout_block, seen(dv), true);
      matmul(dout_block, seen(values).t(), dp);
      score_gradient(p, dp, dout_block, out.slice(0, begin, end), s);
      matmul(p, seen(keys), dq.slice(0, begin, end), false, scale(shape));
      matmul(p.t(), q_block, seen(dk), true, scale(shape));
    });
    set_rows(grad.dq, part, shape, dq);
    set_rows(grad.dk, part, shape, dk);
    set_rows(grad.dv, part, shape, dv);
  });
  return grad;
}

}  // namespace retort
