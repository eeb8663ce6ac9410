#include "adapters/low_rank_init.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <tuple>

#include "adapters/parts.h"
#include "core/error.h"

namespace retort {
namespace {

/// The r largest singular triples of w [out, in]: u [out, r], s [r], vt [r, in]. With `iterations` > 0 by randomized
/// subspace iteration (Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1), which is many times faster.
std::tuple<at::Tensor, at::Tensor, at::Tensor> top_singular(const at::Tensor& w, int64_t r, int64_t iterations,
                                                            const at::Generator& generator) {
  if (iterations == 0) {
    const auto [u, s, vt] = at::linalg_svd(w, false);
    return {u.slice(1, 0, r), s.slice(0, 0, r), vt.slice(0, 0, r)};
  }
  const int64_t columns = std::min(r + 8, std::min(w.size(0), w.size(1)));
  at::Tensor q = std::get<0>(at::linalg_qr(at::mm(w, at::randn({w.size(1), columns}, generator, w.options()))));
  for (int64_t i = 0; i < iterations; ++i) {
    q = std::get<0>(at::linalg_qr(at::mm(w.t(), q)));
    q = std::get<0>(at::linalg_qr(at::mm(w, q)));
  }
  const auto [u, s, vt] = at::linalg_svd(at::mm(q.t(), w), false);
  return {at::mm(q, u).slice(1, 0, r), s.slice(0, 0, r), vt.slice(0, 0, r)};
}

/// b a = the best approximation of rank r of w / scale, its singular values divided evenly between the two.
LowRankStart principal(const at::Tensor& w, const AdapterPlace& place, const at::Generator& generator) {
  const auto [u, s, vt] = top_singular(w, place.target.r, place.options.init_lora_weights.iterations, generator);
  const at::Tensor root = s.div(place.target.scale).sqrt();
  return {root.unsqueeze(1) * vt, u * root, false};
}

}  // namespace

LowRankStart low_rank_start(const AdapterPlace& place) {
  const at::NoGradGuard no_grad;
  const Linear& layer = place.linear;
  const int64_t r = place.target.r;
  const LoraInit& init = place.options.init_lora_weights;
  const at::Generator generator = generator_of(fmt::format("{} {} init", place.seed, layer.name), at::kCPU);
  if (init.from_weight() && r > std::min(layer.in, layer.out))
    fail(Exit::usage, "init_lora_weights: {} takes r = {} directions of {}, whose weight is {} x {}; lower r",
         init.name(), r, layer.name, layer.out, layer.in);
  const auto weight = [&] {
    return layer.weight().to(at::kCPU, place.parameter == at::kDouble ? at::kDouble : at::kFloat);
  };
  LowRankStart start;
  switch (init.kind) {
    case LoraInit::kaiming: {
      const double bound = 1 / std::sqrt(static_cast<double>(layer.in));  // kaiming_uniform with a = sqrt(5)
      start.a = at::empty({r, layer.in}, at::kFloat).uniform_(-bound, bound, generator);
      break;
    }
    case LoraInit::gaussian:
      start.a = at::empty({r, layer.in}, at::kFloat).normal_(0, 1 / static_cast<double>(r), generator);
      break;
    case LoraInit::pissa:
      start = principal(weight(), place, generator);
      start.taken_from_base = true;
      break;
    case LoraInit::olora: {
      const auto [q, upper] = at::linalg_qr(weight());
      start = {upper.slice(0, 0, r), q.slice(1, 0, r), true};
      break;
    }
    case LoraInit::loftq: {
      if (!place.original)
        fail(Exit::usage,
             "init_lora_weights: loftq makes up for the error of quantization, so it needs the weights from before it: "
             "a base of nf4, fp4 or int8 over unquantized weights");
      const at::Tensor now = weight();
      start = principal(place.original(layer.name + ".weight").to(now.options()) - now, place, generator);
      break;
    }
  }
  if (!start.b.defined()) start.b = at::zeros({layer.out, r}, at::kFloat);
  return start;
}

}  // namespace retort
