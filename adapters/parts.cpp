#include "adapters/parts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/hash.h"
#include "models/matmul.h"

namespace retort {

at::Generator generator_of(const std::string& key, at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(xxh3(key));
  return generator;
}

at::Tensor Dropout::mask(const at::Tensor& x) const {
  const double keep = 1 - share_;
  const at::Generator generator = generator_of(fmt::format("{} {} {}", seed_, name_, micro_step_), device_);
  return at::empty_like(x).bernoulli_(keep, generator).mul_(1 / keep);
}

at::Tensor& gradient_of(at::Tensor& parameter) {
  at::Tensor& gradient = parameter.mutable_grad();
  if (!gradient.defined()) gradient = at::zeros_like(parameter, parameter.options().requires_grad(false));
  return gradient;
}

void accumulate_product(at::Tensor& parameter, const at::Tensor& left, const at::Tensor& right, double factor) {
  at::Tensor& gradient = gradient_of(parameter);
  if (gradient.scalar_type() == left.scalar_type()) {
    matmul(left.t(), right, gradient, true, factor);
  } else {
    gradient.add_(at::mm(left.t(), right), factor);
  }
}

void accumulate(at::Tensor& parameter, const at::Tensor& gradient) {
  gradient_of(parameter).add_(gradient.reshape(parameter.sizes()));
}

}  // namespace retort
