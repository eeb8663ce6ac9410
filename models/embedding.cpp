#include "models/embedding.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace retort {
namespace {

at::Tensor adapted_rows(const Embedding& embedding, const at::Tensor& ids) {
  at::Tensor y = embedding.weight.rows(ids);
  embedding.adapter->forward(ids.to(y.device()), y);
  return y;
}

struct Embed : torch::autograd::Function<Embed> {
  /// `parameter` makes autograd run the backward; its gradient is added up there, by hand.
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& /*parameter*/,
                            const Embedding* embedding, const at::Tensor& ids) {
    ctx->save_for_backward({ids});
    ctx->saved_data["embedding"] = reinterpret_cast<int64_t>(embedding);
    return adapted_rows(*embedding, ids);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto& embedding = *reinterpret_cast<const Embedding*>(ctx->saved_data["embedding"].toInt());
    embedding.adapter->backward(ctx->get_saved_variables()[0].to(gradients[0].device()), gradients[0].contiguous());
    return {at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor embed(const Embedding& embedding, const at::Tensor& ids, bool graph) {
  if (!embedding.adapter) return embedding.weight.rows(ids);
  if (graph) return Embed::apply(embedding.adapter->parameters().front().tensor, &embedding, ids);
  const at::NoGradGuard no_grad;
  return adapted_rows(embedding, ids);
}

}  // namespace retort
