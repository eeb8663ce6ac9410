#include "adapters/compare.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "adapters/combine.h"
#include "core/error.h"

namespace retort {
namespace {

/// Sums over one module or several; squares and products add up where norms do not.
struct Sums {
  std::vector<double> squares, ranks, stored;
  double inner = 0, base = 0;
  int64_t count = 0;

  explicit Sums(size_t adapters) : squares(adapters), ranks(adapters), stored(adapters) {}
  void add(const Sums& other) {
    for (size_t i = 0; i < squares.size(); ++i) {
      squares[i] += other.squares[i];
      ranks[i] += other.ranks[i];
      stored[i] += other.stored[i];
    }
    inner += other.inner;
    base += other.base;
    count += other.count;
  }
  Json to_json() const {
    Json json = {{"size", Json::array()}, {"rank", Json::array()}, {"stored_rank", Json::array()}};
    const auto n = static_cast<double>(count);
    for (size_t i = 0; i < squares.size(); ++i) {
      json["size"].push_back(std::sqrt(squares[i]));
      json["rank"].push_back(ranks[i] / n);
      json["stored_rank"].push_back(stored[i] / n);
    }
    if (base > 0) json["base"] = std::sqrt(base);
    if (squares.size() == 2) {
      const double both = std::sqrt(squares[0]) * std::sqrt(squares[1]);
      json["cosine"] = both > 0 ? Json(inner / both) : Json(nullptr);
      const double apart = std::sqrt(std::max(0.0, squares[0] + squares[1] - 2 * inner));
      json["difference"] = squares[0] > 0 ? Json(apart / std::sqrt(squares[0])) : Json(nullptr);
    }
    return json;
  }
};

/// Sum over elements of (b a) * (b' a'), without either product.
double inner_product(const Product& x, const Product& y) {
  const at::Tensor b = at::mm(x.b.to(at::kDouble).t(), y.b.to(at::kDouble)),
                   a = at::mm(x.a.to(at::kDouble), y.a.to(at::kDouble).t());
  return x.scale * y.scale * (b * a).sum().item<double>();
}

int64_t energy_rank(const Product& product) {
  const at::Tensor energy = decompose(product.b, product.a).s.square().cumsum(0);
  const double all = energy[-1].item<double>();
  return all > 0 ? energy.lt(kEnergy * all).sum().item<int64_t>() + 1 : 0;
}

Sums module_sums(const std::string& module, const std::vector<ProductAdapter>& adapters, const Checkpoint* base) {
  Sums sums(adapters.size());
  sums.count = 1;
  std::vector<const Product*> products;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto found = adapters[i].modules.find(module);
    products.push_back(found == adapters[i].modules.end() ? nullptr : &found->second);
    const Product* product = products.back();
    if (!product) continue;
    sums.squares[i] = inner_product(*product, *product);
    sums.ranks[i] = static_cast<double>(energy_rank(*product));
    sums.stored[i] = static_cast<double>(product->a.size(0));
  }
  if (products.size() == 2 && products[0] && products[1]) {
    check_same_weight(module, adapters[0], adapters[1]);
    sums.inner = inner_product(*products[0], *products[1]);
  }
  if (base) {
    // A tied head has no tensor of its own.
    const std::string own = module + ".weight", name = base->has(own) ? own : "model.embed_tokens.weight";
    const at::Tensor weight = base->tensor(name).dequantize(at::kFloat);
    sums.base = weight.square().sum(at::kDouble).item<double>();
  }
  return sums;
}

}  // namespace

Json compare(const std::vector<ProductAdapter>& adapters, const Checkpoint* base) {
  const at::NoGradGuard no_grad;
  std::map<std::string, Sums> modules, layers;
  for (const ProductAdapter& adapter : adapters)
    for (const auto& [module, product] : adapter.modules) modules.try_emplace(module, adapters.size());
  Sums all(adapters.size());
  Json json = {{"modules", Json::array()}, {"layers", Json::array()}};
  const auto named = [](const char* key, const std::string& name, const Sums& sums) {
    Json entry = {{key, name}};
    entry.update(sums.to_json());
    return entry;
  };
  for (auto& [module, sums] : modules) {
    sums = module_sums(module, adapters, base);
    json["modules"].push_back(named("module", module, sums));
    layers.try_emplace(module.substr(module.rfind('.') + 1), adapters.size()).first->second.add(sums);
    all.add(sums);
  }
  for (const auto& [name, sums] : layers) {
    json["layers"].push_back(named("name", name, sums));
    json["layers"].back()["count"] = sums.count;
  }
  json["all"] = all.to_json();
  return json;
}

}  // namespace retort
