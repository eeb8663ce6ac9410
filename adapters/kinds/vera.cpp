// VeRA (https://arxiv.org/abs/2310.11454): W + diag(b) B diag(d) A with random A and B that all layers share; only the
// vectors b and d are trained.
//
//   forward   u = drop(x) Aᵀ,  y += b * ((d * u) Bᵀ)
//   backward  dv = (b * dy) B;  dd += sum of dv * u,  db += rows of B * (dyᵀ (d * u)),  dx += drop((d * dv) A)
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cmath>

#include "adapters/attach.h"
#include "adapters/parts.h"
#include "adapters/peft_config.h"
#include "models/matmul.h"

namespace retort {
namespace {

/// As large as the largest layer needs; a layer takes the first columns of A and the first rows of B.
struct Projections {
  at::Tensor a, b;  ///< [r, in], [out, r]
};

/// PEFT's numbers for the same key: kaiming-uniform from one CPU generator, A before B.
Projections draw(const AdapterPlace& place) {
  int64_t in = 0, out = 0;
  for (const Linear* linear : place.all) {
    in = std::max(in, linear->in);
    out = std::max(out, linear->out);
  }
  const at::Generator generator =
      at::detail::createCPUGenerator(static_cast<uint64_t>(place.options.projection_prng_key));
  const auto uniform = [&](int64_t rows, int64_t columns) {
    const double bound = std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(columns)));
    return at::empty({rows, columns}, at::kFloat)
        .uniform_(-bound, bound, generator)
        .to(at::TensorOptions(place.device).dtype(place.parameter));
  };
  at::Tensor a = uniform(place.options.r, in);
  return {a, uniform(out, place.options.r)};
}

class Vera final : public LinearAdapter {
 public:
  explicit Vera(const AdapterPlace& place)
      : dropout_(place, place.options.lora_dropout),
        name_(place.linear.name),
        in_(place.linear.in),
        out_(place.linear.out) {
    if (!place.shared.has_value()) place.shared = draw(place);
    projections_ = std::any_cast<Projections>(place.shared);
    const auto type = at::TensorOptions(place.device).dtype(place.parameter);
    d_ = at::full({place.options.r}, place.options.d_initial, type).requires_grad_(true);
    b_ = at::zeros({out_}, type).requires_grad_(true);
  }

  void forward(const Linear& layer, const at::Tensor& x, const at::Tensor& y, bool training, Kept& kept) override {
    const at::NoGradGuard no_grad;
    dropout_.begin(training);
    base_forward(layer, x, y);
    const at::Tensor u = at::empty({x.size(0), d_.size(0)}, x.options());
    matmul(dropout_(x), down(x.scalar_type()).t(), u);
    matmul(u * d_.to(u.scalar_type()), (up(x.scalar_type()) * b_.to(x.scalar_type()).unsqueeze(1)).t(), y, true);
    kept = {u};
  }

  void backward(const Linear& layer, const at::Tensor& x, const at::Tensor& dy, const Kept& kept, const at::Tensor& dx,
                bool add) override {
    const at::NoGradGuard no_grad;
    base_backward(layer, dy, dx, add);
    const at::Tensor& u = kept[0];
    const at::Tensor d = d_.to(u.scalar_type()), rows = up(u.scalar_type());
    accumulate(b_, at::mm(dy.t(), u * d).mul_(rows).sum(1));
    const at::Tensor dv = at::empty_like(u);
    matmul(dy, rows * b_.to(u.scalar_type()).unsqueeze(1), dv);
    accumulate(d_, (dv * u).sum(0));
    if (!dx.defined()) return;
    const at::Tensor part = at::mm(dv * d, down(u.scalar_type()));
    at::Tensor sum = dx;
    if (dropout_.dropping())
      sum.addcmul_(part, dropout_.mask(x));
    else
      sum.add_(part);
  }

  int64_t kept_of_a_token() const override { return d_.size(0); }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::NoGradGuard no_grad;
    const LowRank change = product();
    return at::addmm(weight, change.b.to(weight.options()), change.a.to(weight.options()));
  }

  std::vector<Parameter> parameters() const override {
    return {{name_ + ".vera_lambda_b", b_}, {name_ + ".vera_lambda_d", d_}};
  }
  std::vector<Parameter> shared() const override { return {{"vera_A", projections_.a}, {"vera_B", projections_.b}}; }

  LowRank low_rank() const override {
    const at::NoGradGuard no_grad;
    const LowRank change = product();
    return {change.a.to(at::kCPU, at::kFloat), change.b.to(at::kCPU, at::kFloat)};
  }

  void set_micro_step(uint64_t micro_step) override { dropout_.set_micro_step(micro_step); }

 private:
  at::Tensor down(at::ScalarType type) const { return projections_.a.slice(1, 0, in_).to(type); }
  at::Tensor up(at::ScalarType type) const { return projections_.b.slice(0, 0, out_).to(type); }
  LowRank product() const { return {down(d_.scalar_type()) * d_.unsqueeze(1), up(b_.scalar_type()) * b_.unsqueeze(1)}; }

  Dropout dropout_;
  std::string name_;
  int64_t in_, out_;
  Projections projections_;
  at::Tensor d_, b_;  ///< [r], [out]
};

constexpr std::array keys = {"r",        "lora_dropout", "layers_to_transform", "layers_pattern", "projection_prng_key",
                             "d_initial"};

}  // namespace

extern const AdapterKind adapter_vera{
    .name = "vera",
    .summary = "W + diag(b) B diag(d) A with shared random A and B; trains the vectors b and d",
    .peft_type = "VERA",
    .keys = keys,
    .make = [](const AdapterPlace& place) -> std::unique_ptr<LinearAdapter> { return std::make_unique<Vera>(place); },
    .parameters = [](const Linear& linear, const AdapterOptions&,
                     const Target& target) { return linear.out + target.r; },
    .gguf_refusal = [](const AdapterOptions&) -> std::string { return ""; },
    .to_peft =
        [](const AdapterOptions& options, Json& config) {
          config["d_initial"] = options.d_initial;
          config["init_weights"] = true;
          config["projection_prng_key"] = options.projection_prng_key;
          config["r"] = options.r;
          config["save_projection"] = true;
          config["vera_dropout"] = options.lora_dropout;
          put_layers(options, config);
        },
    .from_peft =
        [](const Json& config, const std::string& where, AdapterOptions& options) {
          options.r = json_get<int64_t>(config, "r", where);
          options.lora_dropout = read_dropout(config, "vera_dropout", where);
          options.projection_prng_key = json_get<int64_t>(config, "projection_prng_key", where, 0);
          options.d_initial = json_get<double>(config, "d_initial", where, 0.1);
          get_layers(config, where, options);
        },
    .peft_excludes = false,
};

}  // namespace retort
