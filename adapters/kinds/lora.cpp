// LoRA and rsLoRA (https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2312.03732): W + scale * B A.
//
//   forward   u = drop(x) Aᵀ           y += scale * u Bᵀ
//   backward  du = scale * dy B        dB += scale * dyᵀ u,  dA += duᵀ drop(x),  dx += drop(du A)
//
// u, T x r numbers, is all that is kept between the two: x belongs to the caller, who needs it anyway.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "adapters/attach.h"
#include "core/hash.h"
#include "models/matmul.h"

namespace retort {
namespace {

/// A generator whose whole sequence follows from `key`.
at::Generator generator_of(const std::string& key, at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(xxh3(key));
  return generator;
}

class Lora final : public LinearAdapter {
 public:
  explicit Lora(const AdapterPlace& place)
      : name_(place.linear.name),
        scale_(place.target.scale),
        dropout_(place.options.lora_dropout),
        seed_(place.seed),
        device_(place.device) {
    const int64_t r = place.target.r, in = place.linear.in;
    // Drawn on the CPU in f32, so that every device and type starts from the same numbers.
    const at::Generator generator = generator_of(fmt::format("{} {} init", seed_, name_), at::kCPU);
    at::Tensor a = at::empty({r, in}, at::kFloat);
    if (place.options.init_lora_weights == LoraInit::gaussian) {
      a.normal_(0, 1 / static_cast<double>(r), generator);
    } else {
      const double bound = 1 / std::sqrt(static_cast<double>(in));  // kaiming_uniform with a = sqrt(5)
      a.uniform_(-bound, bound, generator);
    }
    const auto type = at::TensorOptions(place.device).dtype(place.parameter);
    a_ = a.to(type).requires_grad_(true);
    b_ = at::zeros({place.linear.out, r}, type).requires_grad_(true);
  }

  at::Tensor forward(const at::Tensor& x, at::Tensor y, bool training) override {
    const at::NoGradGuard no_grad;
    dropping_ = training && dropout_ > 0;
    at::Tensor u = at::empty({x.size(0), a_.size(0)}, x.options());
    matmul(dropping_ ? x * mask(x) : x, a_.to(x.scalar_type()).t(), u);
    matmul(u, b_.to(x.scalar_type()).t(), y, true, scale_);
    return u;
  }

  void backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& u, at::Tensor dx) override {
    const at::NoGradGuard no_grad;
    const at::Tensor du = at::empty_like(u);
    matmul(dy, b_.to(dy.scalar_type()), du, false, scale_);
    accumulate(b_, dy, u, scale_);
    const at::Tensor a = a_.to(x.scalar_type());
    if (dropping_) {
      const at::Tensor kept = mask(x);
      accumulate(a_, du, x * kept, 1);
      if (dx.defined()) dx.addcmul_(at::mm(du, a), kept);
    } else {
      accumulate(a_, du, x, 1);
      if (dx.defined()) matmul(du, a, dx, true);
    }
  }

  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    return at::addmm(weight, b_.to(weight.options()), a_.to(weight.options()), 1, scale_);
  }

  std::vector<Parameter> parameters() const override {
    return {{name_ + ".lora_A.weight", a_}, {name_ + ".lora_B.weight", b_}};
  }

  LowRank low_rank() const override {
    const at::NoGradGuard no_grad;
    return {a_.to(at::kCPU, at::kFloat), b_.to(at::kCPU, at::kFloat) * scale_};
  }

  void set_micro_step(uint64_t micro_step) override { micro_step_ = micro_step; }

 private:
  /// 0 where an element is dropped, 1 / (1 - p) elsewhere: the same for the same micro-batch, so backward draws it
  /// again.
  at::Tensor mask(const at::Tensor& x) const {
    const double keep = 1 - dropout_;
    const at::Generator generator = generator_of(fmt::format("{} {} {}", seed_, name_, micro_step_), device_);
    return at::empty_like(x).bernoulli_(keep, generator).mul_(1 / keep);
  }

  /// parameter.grad += factor * leftᵀ right, into the buffer that the first step made.
  static void accumulate(at::Tensor& parameter, const at::Tensor& left, const at::Tensor& right, double factor) {
    at::Tensor& gradient = parameter.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(parameter, parameter.options().requires_grad(false));
    if (gradient.scalar_type() == left.scalar_type()) {
      matmul(left.t(), right, gradient, true, factor);
    } else {
      gradient.add_(at::mm(left.t(), right), factor);
    }
  }

  std::string name_;
  double scale_, dropout_;
  uint64_t seed_, micro_step_ = 0;
  at::Device device_;
  bool dropping_ = false;
  at::Tensor a_, b_;  ///< [r, in], [out, r]
};

}  // namespace

extern const AdapterKind adapter_lora{
    .name = "lora",
    .summary = "W + lora_alpha / r * B A; with use_rslora lora_alpha / sqrt(r)",
    .peft_type = "LORA",
    .low_rank = true,
    .make = [](const AdapterPlace& place) -> std::unique_ptr<LinearAdapter> { return std::make_unique<Lora>(place); },
    .parameters = [](const Linear& linear, const Target& target) { return target.r * (linear.in + linear.out); },
};

}  // namespace retort
