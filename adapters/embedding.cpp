#include "adapters/embedding.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <set>

#include "adapters/parts.h"
#include "core/error.h"
#include "models/matmul.h"

namespace retort {
namespace {

at::TensorOptions options_of(const ParameterPlace& place) { return at::TensorOptions(place.device).dtype(place.type); }

class EmbeddingLora final : public EmbeddingAdapter {
 public:
  EmbeddingLora(const Embedding& embedding, const Target& target, ParameterPlace place, uint64_t seed)
      : name_(embedding.name), scale_(target.scale) {
    a_ = at::zeros({target.r, embedding.vocab}, options_of(place)).requires_grad_(true);
    const at::Generator generator = generator_of(fmt::format("{} {} init", seed, name_), at::kCPU);
    b_ = at::empty({embedding.dim, target.r}, at::kFloat)
             .normal_(0, 1, generator)
             .to(options_of(place))
             .requires_grad_(true);
  }

  void forward(const at::Tensor& ids, const at::Tensor& y) override {
    const at::NoGradGuard no_grad;
    matmul(a_.index_select(1, ids).t().to(y.scalar_type()), b_.to(y.scalar_type()).t(), y, true, scale_);
  }

  void backward(const at::Tensor& ids, const at::Tensor& dy) override {
    const at::NoGradGuard no_grad;
    const at::Tensor e = a_.index_select(1, ids).t().to(dy.scalar_type());  // [T, r]
    accumulate_product(b_, dy, e, scale_);
    gradient_of(a_).index_add_(1, ids, at::mm(dy, b_.to(dy.scalar_type())).t().to(a_.scalar_type()), scale_);
  }

  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    return at::addmm(weight, a_.t().to(weight.options()), b_.t().to(weight.options()), 1, scale_);
  }
  std::vector<Parameter> parameters() const override {
    return {{name_ + ".lora_embedding_A", a_}, {name_ + ".lora_embedding_B", b_}};
  }
  LowRank low_rank() const override {
    const at::NoGradGuard no_grad;
    return {a_.to(at::kCPU, at::kFloat), b_.to(at::kCPU, at::kFloat) * scale_};
  }

 private:
  std::string name_;
  double scale_;
  at::Tensor a_, b_;  ///< [r, vocab], [dim, r]
};

/// Rows that replace the frozen ones, for the embedding and for a head that is the same matrix.
struct Rows {
  at::Tensor tokens;  ///< i64 [n]
  at::Tensor rows;    ///< [n, dim]
};

class EmbeddingRows final : public EmbeddingAdapter {
 public:
  EmbeddingRows(const Embedding& embedding, const std::vector<int64_t>& tokens, ParameterPlace place)
      : name_(embedding.name) {
    std::set<int64_t> seen;
    for (const int64_t token : tokens) {
      if (token < 0 || token >= embedding.vocab)
        fail(Exit::usage, "trainable_token_indices: {} is no token; the vocabulary has {}", token, embedding.vocab);
      if (!seen.insert(token).second) fail(Exit::usage, "trainable_token_indices: {} is there twice", token);
    }
    replaced_.tokens = at::tensor(tokens, at::kLong).to(place.device);
    replaced_.rows =
        embedding.weight.rows(at::tensor(tokens, at::kLong)).to(options_of(place), false, true).requires_grad_(true);
    place_of_ = at::full({embedding.vocab}, -1, at::TensorOptions(place.device).dtype(at::kLong));
    place_of_.index_copy_(0, replaced_.tokens, at::arange(replaced_.tokens.numel(), replaced_.tokens.options()));
  }

  void forward(const at::Tensor& ids, const at::Tensor& y) override {
    const at::NoGradGuard no_grad;
    const auto [positions, rows] = found(ids);
    at::Tensor out = y;
    out.index_copy_(0, positions, replaced_.rows.index_select(0, rows).to(y.scalar_type()));
  }

  void backward(const at::Tensor& ids, const at::Tensor& dy) override {
    const at::NoGradGuard no_grad;
    const auto [positions, rows] = found(ids);
    gradient_of(replaced_.rows).index_add_(0, rows, dy.index_select(0, positions).to(replaced_.rows.scalar_type()));
  }

  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    return weight.index_copy(0, replaced_.tokens.to(weight.device()), replaced_.rows.to(weight.options()));
  }
  bool changes_tied_head() const override { return true; }
  std::vector<Parameter> parameters() const override {
    return {{name_ + ".token_adapter.trainable_tokens_delta", replaced_.rows}};
  }
  const Rows& rows() const { return replaced_; }

 private:
  /// The positions of ids whose rows are trained, and which rows those are.
  std::pair<at::Tensor, at::Tensor> found(const at::Tensor& ids) const {
    const at::Tensor places = place_of_.index_select(0, ids);
    const at::Tensor positions = at::nonzero(places >= 0).squeeze(1);
    return {positions, places.index_select(0, positions)};
  }

  std::string name_;
  Rows replaced_;
  at::Tensor place_of_;  ///< i64 [vocab]: the row that replaces a token's, or -1
};

class TiedHeadRows final : public LinearAdapter {
 public:
  explicit TiedHeadRows(Rows rows) : replaced_(std::move(rows)) {}

  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool, Kept&) override {
    const at::NoGradGuard no_grad;
    base_forward(layer, x, y);
    at::Tensor out = y;
    out.index_copy_(1, replaced_.tokens, at::mm(x, replaced_.rows.to(x.scalar_type()).t()));
  }

  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept&, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    const at::Tensor own = dy.index_select(1, replaced_.tokens);
    accumulate_product(replaced_.rows, own, x);
    if (!dx.defined()) return;
    base_backward(layer, dy.index_fill(1, replaced_.tokens, 0), dx, add);
    matmul(own, replaced_.rows.to(dy.scalar_type()), dx, true);
  }

  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    return weight.index_copy(0, replaced_.tokens.to(weight.device()), replaced_.rows.to(weight.options()));
  }
  std::vector<Parameter> parameters() const override { return {}; }  // the embedding's

 private:
  Rows replaced_;
};

class WholeEmbedding final : public EmbeddingAdapter {
 public:
  WholeEmbedding(const Embedding& embedding, ParameterPlace place)
      : name_(embedding.name), weight_(embedding.weight().to(options_of(place), false, true).requires_grad_(true)) {}

  void forward(const at::Tensor& ids, const at::Tensor& y) override {
    const at::NoGradGuard no_grad;
    at::Tensor out = y;
    out.copy_(weight_.index_select(0, ids));
  }
  void backward(const at::Tensor& ids, const at::Tensor& dy) override {
    const at::NoGradGuard no_grad;
    gradient_of(weight_).index_add_(0, ids, dy.to(weight_.scalar_type()));
  }
  at::Tensor merged(const at::Tensor& weight) const override { return weight_.detach().to(weight.options()); }
  std::vector<Parameter> parameters() const override { return {{name_ + ".weight", weight_}}; }

 private:
  std::string name_;
  at::Tensor weight_;  ///< [vocab, dim]
};

class WholeLinear final : public LinearAdapter {
 public:
  WholeLinear(const Linear& linear, ParameterPlace place)
      : name_(linear.name), weight_(linear.weight().to(options_of(place), false, true).requires_grad_(true)) {
    if (linear.bias.defined()) bias_ = linear.bias.to(options_of(place), false, true).requires_grad_(true);
  }

  void forward(const Linear&, const at::Tensor& x, const at::Tensor& y, bool, Kept&) override {
    const at::NoGradGuard no_grad;
    matmul(x, weight_.to(x.scalar_type()).t(), y);
  }
  void backward(const Linear&, const at::Tensor& x, const at::Tensor& dy, const Kept&, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    accumulate_product(weight_, dy, x);
    if (bias_.defined()) accumulate(bias_, dy.sum(0));
    if (dx.defined()) matmul(dy, weight_.to(dy.scalar_type()), dx, add);
  }
  at::Tensor merged(const at::Tensor& weight) const override { return weight_.detach().to(weight.options()); }
  at::Tensor bias(const at::Tensor& base) const override {
    return bias_.defined() ? bias_.detach().to(base.options()) : base;
  }
  std::vector<Parameter> parameters() const override {
    std::vector<Parameter> all = {{name_ + ".weight", weight_}};
    if (bias_.defined()) all.push_back({name_ + ".bias", bias_});
    return all;
  }

 private:
  std::string name_;
  at::Tensor weight_, bias_;
};

}  // namespace

std::shared_ptr<EmbeddingAdapter> embedding_lora(const Embedding& embedding, const Target& target, ParameterPlace place,
                                                 uint64_t seed) {
  return std::make_shared<EmbeddingLora>(embedding, target, place, seed);
}

std::shared_ptr<EmbeddingAdapter> embedding_rows(const Embedding& embedding, const std::vector<int64_t>& tokens,
                                                 ParameterPlace place) {
  return std::make_shared<EmbeddingRows>(embedding, tokens, place);
}

std::shared_ptr<LinearAdapter> tied_head_rows(const EmbeddingAdapter& rows) {
  return std::make_shared<TiedHeadRows>(dynamic_cast<const EmbeddingRows&>(rows).rows());
}

std::shared_ptr<EmbeddingAdapter> whole_embedding(const Embedding& embedding, ParameterPlace place) {
  return std::make_shared<WholeEmbedding>(embedding, place);
}

std::shared_ptr<LinearAdapter> whole_linear(const Linear& linear, ParameterPlace place) {
  return std::make_shared<WholeLinear>(linear, place);
}

}  // namespace retort
