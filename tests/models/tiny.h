// The tiny golden models (tests/golden/make_tiny_llama.py), and a LoRA of the tests' own, so that the models are tested
// without adapters/.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "models/causal_lm.h"
#include "models/safetensors.h"

namespace retort {

class TestLora final : public LinearAdapter {
 public:
  TestLora(at::Tensor down, at::Tensor up)
      : a(std::move(down).requires_grad_(true)), b(std::move(up).requires_grad_(true)) {}
  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool, Kept& kept) override {
    const at::NoGradGuard no_grad;
    base_forward(layer, x, y);
    kept = {at::mm(x, a.t())};
    y.add_(at::mm(kept[0], b.t()), 2);
  }
  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    base_backward(layer, dy, dx, add);
    const at::Tensor& u = kept[0];
    const at::Tensor du = at::mm(dy, b).mul_(2);
    if (!a.grad().defined()) a.mutable_grad() = at::zeros_like(a), b.mutable_grad() = at::zeros_like(b);
    a.mutable_grad().add_(at::mm(du.t(), x));
    b.mutable_grad().add_(at::mm(dy.t(), u), 2);
    if (dx.defined()) dx.add_(at::mm(du, a));
  }
  at::Tensor merged(const at::Tensor& weight) const override { return weight + 2 * at::mm(b, a); }
  std::vector<Parameter> parameters() const override { return {{"a", a}, {"b", b}}; }

  at::Tensor a, b;  ///< [r, in], [out, r]
};

/// A random one on every linear that `wanted` accepts; the same numbers each time.
template <typename Wanted>
void attach_random(CausalLM& model, const Wanted& wanted) {
  at::manual_seed(7);
  for (Linear* linear : model.linears()) {
    const at::Tensor a = at::randn({3, linear->in}, model.dtype()) / 5,
                     b = at::randn({linear->out, 3}, model.dtype()) / 5;
    if (wanted(linear->name)) linear->adapter = std::make_unique<TestLora>(a, b);
  }
}

inline void detach_all(CausalLM& model) {
  for (Linear* linear : model.linears()) linear->adapter.reset();
}

inline std::vector<Parameter> parameters_of(CausalLM& model) {
  std::vector<Parameter> all;
  for (Linear* linear : model.linears())
    if (linear->adapter)
      for (Parameter& p : linear->adapter->parameters()) all.push_back({linear->name + "." + p.name, p.tensor});
  return all;
}

/// Copies of all gradients, zeroed in the model.
inline std::vector<at::Tensor> take_gradients(CausalLM& model) {
  std::vector<at::Tensor> all;
  for (const Parameter& p : parameters_of(model)) {
    if (!p.tensor.grad().defined()) throw std::runtime_error(p.name + " got no gradient");
    all.push_back(p.tensor.grad().clone());
    p.tensor.grad().zero_();
  }
  return all;
}

inline std::filesystem::path tiny_folder(const std::string& variant) {
  return std::filesystem::path(RETORT_GOLDEN) / "tiny_llama" / variant;
}

inline std::unique_ptr<CausalLM> tiny_model(const std::string& variant, at::ScalarType dtype,
                                            BaseForm base = BaseForm::dense) {
  return CausalLM::load(*Checkpoint::open(tiny_folder(variant)), {.base = base, .dtype = dtype});
}

/// Documents of these lengths; about every fourth token is not trained, the last of each document never.
inline Batch documents(const std::vector<int64_t>& lengths, int64_t vocab, uint64_t seed = 3) {
  at::manual_seed(seed);
  Batch batch;
  batch.offsets = {0};
  for (const int64_t length : lengths) batch.offsets.push_back(batch.offsets.back() + length);
  batch.ids = at::randint(vocab, {batch.tokens()}, at::kLong);
  batch.labels = at::randint(vocab, {batch.tokens()}, at::kLong);
  batch.labels.masked_fill_(at::rand({batch.tokens()}) < 0.25, -1);
  for (size_t d = 1; d < batch.offsets.size(); ++d) batch.labels[batch.offsets[d] - 1] = -1;
  return batch;
}

/// Largest difference over largest value.
inline double relative(const at::Tensor& got, const at::Tensor& want) {
  if (!got.sizes().equals(want.sizes())) return INFINITY;
  const at::Tensor g = got.detach().to(at::kDouble), w = want.detach().to(at::kDouble);
  return (g - w).abs().max().item<double>() / std::max(1e-30, w.abs().max().item<double>());
}

inline at::Tensor loss_of(CausalLM& model, const Batch& batch, const ForwardOptions& options = {.training = true}) {
  return model.cross_entropy(model.hidden(batch, options), batch.labels);
}

}  // namespace retort
