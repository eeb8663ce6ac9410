// (IA)³ (https://arxiv.org/abs/2205.05638): one trained vector a layer that scales its output, or its input where
// feedforward_modules says so.
//
//   output   y = l * (x Wᵀ + bias)     dl += sum of dy * (x Wᵀ + bias),   dx = (l * dy) W
//   input    y = (l * x) Wᵀ + bias     dl += sum of x * (dy W),           dx = l * (dy W)
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>

#include "adapters/attach.h"
#include "adapters/match.h"
#include "adapters/parts.h"
#include "adapters/peft_config.h"

namespace retort {
namespace {

class Ia3 final : public LinearAdapter {
 public:
  explicit Ia3(const AdapterPlace& place)
      : name_(place.linear.name), scales_input_(chooses(place.options.feedforward_modules, place.linear.name)) {
    const auto type = at::TensorOptions(place.device).dtype(place.parameter);
    l_ = (scales_input_ ? at::ones({1, place.linear.in}, type) : at::ones({place.linear.out, 1}, type))
             .requires_grad_(true);
  }

  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool, Kept& kept) override {
    const at::NoGradGuard no_grad;
    const at::Tensor l = vector(x.scalar_type());
    if (scales_input_) {
      base_forward(layer, x * l, y);
      return;
    }
    const at::Tensor z = at::empty({x.size(0), layer.out}, x.options());
    base_forward(layer, x, z);
    at::Tensor out = y;
    at::mul_out(out, z, l);
    kept = {z};
  }

  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    const at::Tensor l = vector(x.scalar_type());
    if (scales_input_) {
      const at::Tensor through = at::empty_like(x);
      base_backward(layer, dy, through, false);
      accumulate(l_, (through * x).sum(0));
      at::Tensor sum = dx;
      if (dx.defined() && add)
        sum.addcmul_(through, l);
      else if (dx.defined())
        at::mul_out(sum, through, l);
      return;
    }
    at::Tensor dl = (dy * kept[0]).sum(0);
    if (layer.bias.defined()) dl.addcmul_(dy.sum(0), layer.bias);
    accumulate(l_, dl);
    if (dx.defined()) base_backward(layer, dy * l, dx, add);
  }

  int64_t kept_of_a_token() const override { return scales_input_ ? 0 : l_.size(0); }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    return weight * l_.to(weight.options());
  }
  at::Tensor bias(const at::Tensor& base) const override {
    const at::NoGradGuard no_grad;
    return scales_input_ || !base.defined() ? base : base * l_.flatten().to(base.options());
  }
  std::vector<Parameter> parameters() const override { return {{name_ + ".ia3_l", l_}}; }

 private:
  at::Tensor vector(at::ScalarType type) const { return l_.flatten().to(type); }

  std::string name_;
  bool scales_input_;
  at::Tensor l_;  ///< [1, in] or [out, 1]
};

constexpr std::array keys = {"feedforward_modules"};

}  // namespace

extern const AdapterKind adapter_ia3{
    .name = "ia3",
    .summary = "one trained vector a layer that scales its output, or the input of the feedforward_modules",
    .peft_type = "IA3",
    .keys = keys,
    .make = [](const AdapterPlace& place) -> std::unique_ptr<LinearAdapter> { return std::make_unique<Ia3>(place); },
    .parameters =
        [](const Linear& linear, const AdapterOptions& options, const Target&) {
          return chooses(options.feedforward_modules, linear.name) ? linear.in : linear.out;
        },
    .gguf_refusal = [](const AdapterOptions&) -> std::string {
      return "llama.cpp's adapters add a product B A to a weight and cannot scale it";
    },
    .to_peft =
        [](const AdapterOptions& options, Json& config) {
          config["feedforward_modules"] = json_of(options.feedforward_modules);
          config["init_ia3_weights"] = true;
        },
    .from_peft =
        [](const Json& config, const std::string& where, AdapterOptions& options) {
          options.feedforward_modules = read_choice(config, "feedforward_modules", where);
        },
};

}  // namespace retort
