// The frozen token embedding and the place where an adapter attaches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/frozen_matrix.h"
#include "models/linear.h"

namespace retort {

/// What changes the rows of a frozen embedding.
class EmbeddingAdapter {
 public:
  virtual ~EmbeddingAdapter() = default;
  /// y [T, dim] holds the frozen rows of ids i64 [T] and becomes the adapted ones.
  virtual void forward(const at::Tensor& ids, const at::Tensor& y) = 0;
  /// The parameters' gradients += theirs.
  virtual void backward(const at::Tensor& ids, const at::Tensor& dy) = 0;
  /// The weight that a merge gives, same shape and dtype as `weight` (f32 or f64) [vocab, dim].
  virtual at::Tensor merged(const at::Tensor& weight) const = 0;
  /// Whether a head that is the same matrix changes with it.
  virtual bool changes_tied_head() const { return false; }
  virtual std::vector<Parameter> parameters() const = 0;
  /// The change of W as llama.cpp's adapters hold it, b a with a [r, vocab] and b [dim, r]; undefined where there is
  /// none.
  virtual LowRank low_rank() const { return {}; }
};

struct Embedding {
  std::string name = "model.embed_tokens";
  int64_t vocab = 0, dim = 0;
  FrozenMatrix weight;  ///< [vocab, dim]
  std::shared_ptr<EmbeddingAdapter> adapter;
};

/// The rows of ids i64 [T] as [T, dim]; with `graph` differentiable by the adapter's parameters, if there is one.
at::Tensor embed(const Embedding& embedding, const at::Tensor& ids, bool graph);

}  // namespace retort
