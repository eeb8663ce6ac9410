#include "adapters/low_rank.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "adapters/low_rank_init.h"
#include "adapters/peft_config.h"
#include "core/error.h"
#include "models/matmul.h"

namespace retort {
namespace {

/// 16.0 -> 16: PEFT's own files hold whole numbers.
Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

template <typename T>
std::map<std::string, T> read_pattern(const Json& config, const std::string& key, const std::string& where) {
  std::map<std::string, T> pattern;
  if (!config.contains(key) || config[key].is_null()) return pattern;
  if (!config[key].is_object())
    fail(Exit::bad_input, "{}: {} is {}, expected an object", where, key, config[key].dump().substr(0, 80));
  for (const auto& [name, value] : config[key].items())
    pattern[name] = json_get<T>(config[key], name, where + ": " + key);
  return pattern;
}

}  // namespace

void low_rank_to_peft(const AdapterOptions& options, Json& config) {
  Json alphas = Json::object();
  for (const auto& [pattern, alpha] : options.alpha_pattern) alphas[pattern] = number(alpha);
  config["alpha_pattern"] = alphas;
  config["bias"] = options.bias;
  config["init_lora_weights"] = json_of(options.init_lora_weights);
  config["lora_alpha"] = number(options.lora_alpha);
  config["lora_bias"] = options.lora_bias;
  config["lora_dropout"] = options.lora_dropout;
  config["r"] = options.r;
  config["rank_pattern"] = options.rank_pattern;
  config["trainable_token_indices"] =
      options.trainable_token_indices.empty() ? Json(nullptr) : Json(options.trainable_token_indices);
  config["use_dora"] = options.kind == "dora";
  config["use_rslora"] = options.use_rslora;
  put_layers(options, config);
}

void low_rank_from_peft(const Json& config, const std::string& where, AdapterOptions& options) {
  // PEFT takes 8 for each of the first two when they are missing; an adapter whose scale is a guess is refused here.
  options.r = json_get<int64_t>(config, "r", where);
  options.lora_alpha = json_get<double>(config, "lora_alpha", where);
  options.lora_dropout = read_dropout(config, "lora_dropout", where);
  options.use_rslora = json_get<bool>(config, "use_rslora", where, false);
  options.lora_bias = json_get<bool>(config, "lora_bias", where, false);
  get_layers(config, where, options);
  if (config.contains("trainable_token_indices") && config["trainable_token_indices"].is_object())
    fail(Exit::bad_input, "{}: trainable_token_indices names modules; allowed: a list of tokens, for the embedding",
         where);
  options.trainable_token_indices = read_list<int64_t>(config, "trainable_token_indices", where);
  options.rank_pattern = read_pattern<int64_t>(config, "rank_pattern", where);
  options.alpha_pattern = read_pattern<double>(config, "alpha_pattern", where);

  // These leave the base as it is, so that the stored A and B are the whole adapter.
  const std::vector<Json> plain = {nullptr, true, false, "gaussian", "eva", "orthogonal"};
  const Json init = config.contains("init_lora_weights") ? config["init_lora_weights"] : Json(true);
  if (std::find(plain.begin(), plain.end(), init) == plain.end())
    fail(Exit::bad_input,
         "{}: init_lora_weights is {}, which changes the base weights when PEFT loads it; save it again as a plain "
         "LoRA (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))",
         where, init.dump().substr(0, 80));
}

AdapterOptions low_rank_saved(AdapterOptions options) {
  const LoraInit init = std::exchange(options.init_lora_weights, {});
  if (!init.takes_from_base()) return options;
  const double wider = options.use_rslora ? std::sqrt(2.0) : 2;
  options.r *= 2;
  options.lora_alpha *= wider;
  for (auto& [pattern, r] : options.rank_pattern) r *= 2;
  for (auto& [pattern, alpha] : options.alpha_pattern) alpha *= wider;
  return options;
}

int64_t low_rank_parameters(const Linear& linear, const AdapterOptions& options, const Target& target) {
  return target.r * (linear.in + linear.out) + (options.lora_bias ? linear.out : 0);
}

LowRankUpdate::LowRankUpdate(const AdapterPlace& place)
    : dropout(place, place.options.lora_dropout), name_(place.linear.name), scale_(place.target.scale) {
  const auto type = at::TensorOptions(place.device).dtype(place.parameter);
  const LowRankStart start = low_rank_start(place);
  a_ = start.a.to(type, false, true).contiguous().requires_grad_(true);
  b_ = start.b.to(type, false, true).contiguous().requires_grad_(true);
  if (start.taken_from_base) {
    start_a_ = a_.detach().clone();
    start_b_ = b_.detach().clone();
  }
  if (place.options.lora_bias) bias_ = at::zeros({place.linear.out}, type).requires_grad_(true);
}

void LowRankUpdate::base_forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y) const {
  retort::base_forward(layer, x, y);
  if (!start_a_.defined()) return;
  const at::Tensor u = at::empty({x.size(0), start_a_.size(0)}, x.options());
  matmul(x, start_a_.to(x.scalar_type()).t(), u);
  matmul(u, start_b_.to(x.scalar_type()).t(), y, true, -scale_);
}

void LowRankUpdate::base_backward(const Linear& layer, const at::Tensor& dy, const at::Tensor& dx, bool add) const {
  retort::base_backward(layer, dy, dx, add);
  if (!start_a_.defined() || !dx.defined()) return;
  const at::Tensor du = at::empty({dy.size(0), start_a_.size(0)}, dy.options());
  matmul(dy, start_b_.to(dy.scalar_type()), du);
  matmul(du, start_a_.to(dy.scalar_type()), dx, true, -scale_);
}

at::Tensor LowRankUpdate::add(const at::Tensor& x, const at::Tensor& y) const {
  const at::Tensor u = at::empty({x.size(0), a_.size(0)}, x.options());
  matmul(x, a_.to(x.scalar_type()).t(), u);
  matmul(u, b_.to(x.scalar_type()).t(), y, true, scale_);
  return u;
}

at::Tensor LowRankUpdate::add_backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& u) {
  const at::Tensor du = at::empty_like(u);
  matmul(dy, b_.to(dy.scalar_type()), du, false, scale_);
  accumulate_product(b_, dy, u, scale_);
  accumulate_product(a_, du, x);
  if (bias_.defined()) accumulate(bias_, dy.sum(0).mul_(scale_));
  return du;
}

void LowRankUpdate::input_backward(const at::Tensor& x, const at::Tensor& du, const at::Tensor& dx) const {
  if (!dx.defined()) return;
  const at::Tensor a = a_.to(du.scalar_type());
  if (dropout.dropping()) {
    dx.addcmul_(at::mm(du, a), dropout.mask(x));
  } else {
    matmul(du, a, dx, true);
  }
}

LowRank LowRankUpdate::product() const {
  const at::NoGradGuard no_grad;
  if (!start_a_.defined()) return {a_.detach(), b_ * scale_};
  return {at::cat({a_, start_a_}), at::cat({b_, -start_b_}, 1) * scale_};
}

LowRank LowRankUpdate::low_rank() const {
  const LowRank change = product();
  return {change.a.to(at::kCPU, at::kFloat), change.b.to(at::kCPU, at::kFloat)};
}

at::Tensor LowRankUpdate::merged(const at::Tensor& weight) const {
  const at::NoGradGuard no_grad;
  const LowRank change = product();
  return at::addmm(weight, change.b.to(weight.options()), change.a.to(weight.options()));
}

std::vector<Parameter> LowRankUpdate::parameters() const {
  std::vector<Parameter> all = {{name_ + ".lora_A.weight", a_}, {name_ + ".lora_B.weight", b_}};
  if (bias_.defined()) all.push_back({name_ + ".lora_B.bias", bias_});
  return all;
}

std::vector<Parameter> LowRankUpdate::saved() const {
  const at::NoGradGuard no_grad;
  std::vector<Parameter> all = parameters();
  if (start_a_.defined()) {
    all[0].tensor = at::cat({a_, start_a_});
    all[1].tensor = at::cat({b_, -start_b_}, 1);
  }
  return all;
}

at::Tensor LowRankUpdate::bias(const at::Tensor& base) const {
  const at::NoGradGuard no_grad;
  if (!bias_.defined()) return base;
  const at::Tensor own = bias_ * scale_;
  return base.defined() ? base + own.to(base.options()) : own;
}

}  // namespace retort
