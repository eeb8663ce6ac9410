#include "trainer/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/hash.h"

namespace retort {

#define KIND(name) extern const OptimizerKind optimizer_##name;
#include "optimizer_kinds.inc"
#undef KIND

namespace {

constexpr const char* paged_prefix = "paged_";

std::string kind_name(const std::string& optimizer) {
  return is_paged(optimizer) ? optimizer.substr(std::string(paged_prefix).size()) : optimizer;
}

bool is_16_bit(const at::Tensor& tensor) { return tensor.element_size() == 2; }

/// The type in which a parameter is updated.
at::ScalarType update_type(const at::Tensor& parameter) {
  return is_16_bit(parameter) ? at::kFloat : parameter.scalar_type();
}

int64_t bytes_of(const std::vector<StateTensor>& state) {
  int64_t bytes = 0;
  for (const StateTensor& s : state) bytes += static_cast<int64_t>(s.tensor.nbytes());
  return bytes;
}

std::vector<at::Tensor> gradients(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> out;
  for (const auto& p : parameters) out.push_back(p.tensor.grad());
  return out;
}

/// f32 to bf16 or f16 with the mean kept: random bits below the last one that stays carry into it.
void round_stochastically(const at::Tensor& from, const at::Tensor& to, uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(from.device()).clone();
  generator.set_current_seed(seed);
  const int64_t dropped = to.scalar_type() == at::kHalf ? 13 : 16;  // bits of the fraction
  at::Tensor bits = at::empty_like(from, at::kInt).random_(0, int64_t{1} << dropped, generator);
  bits.add_(from.view(at::kInt)).bitwise_and_(-(int64_t{1} << dropped));
  to.copy_(bits.view(at::kFloat));
}

}  // namespace

std::vector<at::Tensor> UpdateGroup::states(size_t i) const {
  std::vector<at::Tensor> out;
  for (const auto& s : state) out.push_back(s[i].tensor);
  return out;
}

UpdateGroup UpdateGroup::of(bool (*sort)(const at::Tensor& parameter)) const {
  UpdateGroup out{.parameters = {},
                  .gradients = {},
                  .state = {},
                  .learning_rate = learning_rate,
                  .weight_decay = weight_decay,
                  .step = step};
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!sort(parameters[i])) continue;
    out.parameters.push_back(parameters[i]);
    out.gradients.push_back(gradients[i]);
    out.state.push_back(state[i]);
  }
  return out;
}

const std::vector<const OptimizerKind*>& optimizer_kinds() {
  static const std::vector<const OptimizerKind*> kinds = {
#define KIND(name) &optimizer_##name,
#include "optimizer_kinds.inc"
#undef KIND
  };
  return kinds;
}

const OptimizerKind& optimizer_kind(const std::string& name) {
  for (const OptimizerKind* kind : optimizer_kinds())
    if (kind_name(name) == kind->name) return *kind;
  fail(Exit::usage, "optimizer: {}", not_among(name, optimizer_names()));
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const OptimizerKind* kind : optimizer_kinds()) names.emplace_back(kind->name);
  for (const OptimizerKind* kind : optimizer_kinds()) names.push_back(std::string(paged_prefix) + kind->name);
  return names;
}

bool is_paged(const std::string& optimizer) { return optimizer.starts_with(paged_prefix); }

int64_t optimizer_state_bytes(const std::vector<Parameter>& parameters, const TrainOptions& options) {
  const OptimizerKind& kind = optimizer_kind(options.optimizer);
  int64_t bytes = 0;
  for (const Parameter& p : parameters)
    bytes +=
        bytes_of(kind.state(at::empty(p.tensor.sizes(), at::device(at::kMeta).dtype(update_type(p.tensor))), options));
  return bytes;
}

Optimizer::Optimizer(const std::vector<Parameter>& parameters, const TrainOptions& options, uint64_t seed)
    : kind_(optimizer_kind(options.optimizer)), parameters_(parameters), options_(options), seed_(seed) {
  if (parameters.empty()) fail(Exit::usage, "nothing to train: no adapter has a parameter");
  const bool paged = is_paged(options.optimizer);
  alone_ = paged && !parameters[0].tensor.is_cpu();
  bool has_b = false;
  for (const Parameter& p : parameters_) {
    rates_.push_back(rate_of(p));
    has_b |= p.name.find("lora_B") != std::string::npos;
    alone_ |= is_16_bit(p.tensor);
    state_.push_back(kind_.state(p.tensor.detach().to(update_type(p.tensor)), options));
    if (paged && !p.tensor.is_cpu())
      for (StateTensor& s : state_.back()) s.tensor = s.tensor.cpu().pin_memory();
  }
  if (options.loraplus_lr_ratio && !has_b)
    fail(Exit::usage,
         "train.loraplus_lr_ratio: is for the matrices B of LoRA, and this adapter has none. Remove the key");
  zero_grad();
}

Optimizer::Rate Optimizer::rate_of(const Parameter& parameter) const {
  const auto named = [&](const char* part) { return parameter.name.find(part) != std::string::npos; };
  Rate rate{.decays = !named("bias") && !named("norm")};
  if (options_.loraplus_lr_ratio) {
    if (named("lora_embedding_"))
      rate.factor = options_.loraplus_lr_embedding / options_.learning_rate;
    else if (named("lora_B") || parameter.tensor.dim() == 1)
      rate.factor = *options_.loraplus_lr_ratio;
  }
  return rate;
}

void Optimizer::zero_grad() {
  for (auto& p : parameters_) {
    at::Tensor& grad = p.tensor.mutable_grad();
    if (grad.defined())
      grad.detach_().zero_();
    else
      grad = at::zeros_like(p.tensor.detach());
  }
}

std::vector<double> Optimizer::grad_norms() const {
  std::vector<double> norms;
  for (const auto& norm : at::_foreach_norm(gradients(parameters_))) norms.push_back(norm.item<double>());
  return norms;
}

double Optimizer::clip(double max_norm) {
  at::NoGradGuard no_grad;
  auto grads = gradients(parameters_);
  // The squares are added in double: thousands of f32 norms would otherwise depend on their order in the last digits.
  at::Tensor norm = at::stack(at::_foreach_norm(grads)).to(at::kDouble).norm();
  const double value = norm.item<double>();
  if (max_norm > 0 && std::isfinite(value)) {
    const double scale = max_norm / (value + 1e-6);
    if (scale < 1) at::_foreach_mul_(grads, at::Scalar(scale));
  }
  return value;
}

UpdateGroup Optimizer::group(const Rate& rate, double learning_rate) const {
  return {.parameters = {},
          .gradients = {},
          .state = {},
          .learning_rate = learning_rate * rate.factor,
          .weight_decay = rate.decays ? options_.weight_decay : 0,
          .step = steps_};
}

void Optimizer::step(double learning_rate) {
  at::NoGradGuard no_grad;
  ++steps_;
  if (alone_) {
    for (size_t i = 0; i < parameters_.size(); ++i) step_alone(i, learning_rate);
    return;
  }
  std::vector<bool> done(parameters_.size());
  for (size_t first = 0; first < parameters_.size(); ++first) {
    if (done[first]) continue;
    UpdateGroup alike = group(rates_[first], learning_rate);
    for (size_t i = first; i < parameters_.size(); ++i) {
      if (!(rates_[i] == rates_[first])) continue;
      alike.parameters.push_back(parameters_[i].tensor.detach());  // same memory, without autograd's checks
      alike.gradients.push_back(parameters_[i].tensor.grad());
      alike.state.push_back(state_[i]);
      done[i] = true;
    }
    kind_.update(alike, options_);
  }
}

void Optimizer::step_alone(size_t i, double learning_rate) {
  const at::Tensor parameter = parameters_[i].tensor.detach();
  const at::Tensor wide = parameter.to(update_type(parameter));
  UpdateGroup one = group(rates_[i], learning_rate);
  one.parameters = {wide};
  one.gradients = {parameters_[i].tensor.grad().to(wide.scalar_type())};
  one.state = {state_[i]};
  for (StateTensor& s : one.state[0]) s.tensor = s.tensor.to(parameter.device());
  kind_.update(one, options_);
  for (size_t k = 0; k < state_[i].size(); ++k)
    if (!state_[i][k].tensor.is_same(one.state[0][k].tensor)) state_[i][k].tensor.copy_(one.state[0][k].tensor);
  if (is_16_bit(parameter))
    round_stochastically(wide, parameter, xxh3(fmt::format("{} {} {}", seed_, parameters_[i].name, steps_)));
}

std::vector<Parameter> Optimizer::state() const {
  std::vector<Parameter> out;
  for (size_t i = 0; i < parameters_.size(); ++i)
    for (const StateTensor& s : state_[i]) out.push_back({parameters_[i].name + "." + s.name, s.tensor});
  return out;
}

int64_t Optimizer::bytes() const {
  int64_t bytes = 0;
  for (const auto& state : state_) bytes += bytes_of(state);
  for (const Parameter& p : parameters_) bytes += static_cast<int64_t>(p.tensor.nbytes());
  return bytes;
}

}  // namespace retort
