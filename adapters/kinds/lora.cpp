// LoRA and rsLoRA (https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2312.03732): W + scale * B A.
//
//   forward   u = drop(x) Aᵀ           y += scale * u Bᵀ
//   backward  du = scale * dy B        dB += scale * dyᵀ u,  dA += duᵀ drop(x),  dx += drop(du A)
//
// u, T x r numbers, is all that is kept between the two: x belongs to the caller, who needs it anyway.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "adapters/attach.h"
#include "adapters/low_rank.h"

namespace retort {
namespace {

class Lora final : public LinearAdapter {
 public:
  explicit Lora(const AdapterPlace& place) : update_(place) {}

  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept) override {
    const at::NoGradGuard no_grad;
    update_.dropout.begin(training);
    update_.base_forward(layer, x, y);
    kept = {update_.add(update_.dropout(x), y)};
  }

  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    update_.base_backward(layer, dy, dx, add);
    const at::Tensor du = update_.add_backward(update_.dropout(x), dy, kept[0]);
    update_.input_backward(x, du, dx);
  }

  int64_t kept_of_a_token() const override { return update_.rank(); }
  at::Tensor merged(const at::Tensor& weight) const override { return update_.merged(weight); }
  at::Tensor bias(const at::Tensor& base) const override { return update_.bias(base); }
  std::vector<Parameter> parameters() const override { return update_.parameters(); }
  std::vector<Parameter> saved() const override { return update_.saved(); }
  LowRank low_rank() const override { return update_.low_rank(); }
  void set_micro_step(uint64_t micro_step) override { update_.dropout.set_micro_step(micro_step); }

 private:
  LowRankUpdate update_;
};

}  // namespace

extern const AdapterKind adapter_lora{
    .name = "lora",
    .summary = "W + lora_alpha / r * B A; with use_rslora lora_alpha / sqrt(r)",
    .peft_type = "LORA",
    .keys = low_rank_keys,
    .make = [](const AdapterPlace& place) -> std::unique_ptr<LinearAdapter> { return std::make_unique<Lora>(place); },
    .parameters = low_rank_parameters,
    .gguf_refusal = [](const AdapterOptions& options) -> std::string {
      return options.lora_bias ? "llama.cpp's adapters have no biases" : "";
    },
    .to_peft = low_rank_to_peft,
    .from_peft = low_rank_from_peft,
    .product_on_each = true,
    .saved = low_rank_saved,
};

}  // namespace retort
