#include "adapters/combine.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "adapters/parts.h"
#include "core/error.h"
#include "core/schema.h"

namespace retort {
namespace {

enum class Form { cat, factors, products };
enum class Prune { none, magnitude, random };

struct Type {
  const char* name;
  Form form;
  Prune prune = Prune::none;
  bool elect_sign = false;
};
constexpr Type types[] = {{"linear", Form::factors},
                          {"cat", Form::cat},
                          {"svd", Form::products},
                          {"ties", Form::factors, Prune::magnitude, true},
                          {"ties_svd", Form::products, Prune::magnitude, true},
                          {"dare_linear", Form::factors, Prune::random},
                          {"dare_linear_svd", Form::products, Prune::random},
                          {"dare_ties", Form::factors, Prune::random, true},
                          {"dare_ties_svd", Form::products, Prune::random, true},
                          {"magnitude_prune", Form::factors, Prune::magnitude},
                          {"magnitude_prune_svd", Form::products, Prune::magnitude}};

const Type& type_named(const std::string& name) {
  for (const Type& type : types)
    if (name == type.name) return type;
  fail(Exit::usage, "type: {}", not_among(name, combination_types()));
}

/// One module's part of an adapter, in f64.
struct Part {
  at::Tensor a, b;
  double scale, weight;
  size_t adapter;  ///< its number
};

void check_options(const Type& type, const CombineOptions& options, size_t adapters) {
  if (adapters == 0) fail(Exit::usage, "there is no adapter to combine");
  if (!options.weights.empty() && options.weights.size() != adapters)
    fail(Exit::usage, "weights: {} given for {} adapters; give one each", options.weights.size(), adapters);
  for (const double weight : options.weights)
    if (!std::isfinite(weight)) fail(Exit::usage, "weights: {} is no weight", weight);
  if (options.rank < 0 || (options.rank > 0 && type.form != Form::products))
    fail(Exit::usage, "rank: {} does not go with {}; allowed: 1 or more, with the types that end in svd", options.rank,
         type.name);
  if (type.prune == Prune::none && options.density)
    fail(Exit::usage, "density: {} keeps every number; density belongs to ties, dare and magnitude_prune", type.name);
  if (type.prune != Prune::none && !(options.density && *options.density > 0 && *options.density <= 1))
    fail(Exit::usage, "density: {} needs the share of the numbers to keep, above 0 and at most 1", type.name);
}

/// A value that all adapters have or do not know; empty where they disagree.
std::string common(const std::vector<ProductAdapter>& adapters, std::string AdapterOrigin::*field) {
  std::set<std::string> values;
  for (const ProductAdapter& adapter : adapters) values.insert(adapter.origin.*field);
  values.erase("");
  return values.size() == 1 ? *values.begin() : "";
}

/// Error(bad_input) for adapters that were trained on different bases.
AdapterOrigin common_origin(const std::vector<ProductAdapter>& adapters) {
  const ProductAdapter& first = adapters.front();
  for (const ProductAdapter& other : adapters) {
    const bool hashed = !first.origin.base_hash.empty() && !other.origin.base_hash.empty();
    if (hashed ? first.origin.base_hash != other.origin.base_hash
               : !first.origin.base.empty() && !other.origin.base.empty() && first.origin.base != other.origin.base)
      fail(Exit::bad_input,
           "{} and {} were trained on different bases: {} {} and {} {}. If they are known to be the same, give it as "
           "--model",
           first.name, other.name, first.origin.base, hashed ? first.origin.base_hash : "", other.origin.base,
           hashed ? other.origin.base_hash : "");
    if (first.origin.base_form != other.origin.base_form)
      fail(Exit::bad_input, "{} and {} were trained on different forms of the base: \"{}\" and \"{}\" (retort.json)",
           first.name, other.name, first.origin.base_form, other.origin.base_form);
  }
  return {.base = common(adapters, &AdapterOrigin::base),
          .base_hash = common(adapters, &AdapterOrigin::base_hash),
          .base_form = first.origin.base_form,
          .template_hash = common(adapters, &AdapterOrigin::template_hash),
          .data_hash = common(adapters, &AdapterOrigin::data_hash)};
}

/// What chose the modules, where all adapters say the same; else the modules' whole names.
AdapterOptions common_choice(const std::vector<ProductAdapter>& adapters, const std::set<std::string>& modules) {
  const AdapterOptions& first = adapters.front().options;
  const bool same = std::all_of(adapters.begin(), adapters.end(), [&](const ProductAdapter& adapter) {
    const AdapterOptions& other = adapter.options;
    return json_of(other.target_modules) == json_of(first.target_modules) &&
           json_of(other.exclude_modules) == json_of(first.exclude_modules) &&
           other.layers_to_transform == first.layers_to_transform && other.layers_pattern == first.layers_pattern;
  });
  AdapterOptions options;
  options.target_modules = {.expression = "", .names = {modules.begin(), modules.end()}};
  if (!same) return options;
  options.target_modules = first.target_modules;
  options.exclude_modules = first.exclude_modules;
  options.layers_to_transform = first.layers_to_transform;
  options.layers_pattern = first.layers_pattern;
  return options;
}

at::Tensor pruned(const at::Tensor& tensor, const Type& type, double density, const std::string& key) {
  if (type.prune == Prune::none || density >= 1) return tensor;
  if (type.prune == Prune::random) {
    const at::Tensor kept = at::rand(tensor.sizes(), generator_of(key, at::kCPU), at::kFloat).lt(density);
    return tensor * kept / density;
  }
  const auto count = static_cast<int64_t>(density * static_cast<double>(tensor.numel()));
  const at::Tensor largest = std::get<1>(tensor.abs().flatten().topk(count));
  return tensor * at::zeros({tensor.numel()}, tensor.options()).index_fill_(0, largest, 1).view_as(tensor);
}

/// The weighted sum of tensors after pruning; with a sign to elect, the mean over those that have the sign of the
/// larger mass. `keys` name the tensors for what is random.
at::Tensor arithmetic(std::vector<at::Tensor> tensors, const std::vector<double>& weights, const Type& type,
                      double density, const std::vector<std::string>& keys) {
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i] = pruned(tensors[i], type, density, keys[i]);
  const at::Tensor stack = at::stack(tensors);
  const at::Tensor weighted = stack * at::tensor(weights, stack.options()).view({-1, 1, 1});
  if (!type.elect_sign) return weighted.sum(0);
  const at::Tensor elected = at::where(stack.sum(0) >= 0, 1.0, -1.0);
  const at::Tensor agree = stack.sign() == elected;
  return (weighted * agree).sum(0) / agree.sum(0).clamp_min(1);
}

Product by_factors(const std::string& module, const std::vector<Part>& parts, const Type& type,
                   const CombineOptions& options, const std::vector<ProductAdapter>& adapters) {
  std::vector<at::Tensor> a, b;
  std::vector<double> a_weights, b_weights;
  std::vector<std::string> a_keys, b_keys;
  for (const Part& part : parts) {
    if (part.a.size(0) != parts[0].a.size(0))
      fail(Exit::usage,
           "{}: {} has rank {}, {} has {}; {} adds factors to factors, so ranks must be equal. Use svd or cat", module,
           adapters[parts[0].adapter].name, parts[0].a.size(0), adapters[part.adapter].name, part.a.size(0), type.name);
    const double weight = part.weight * part.scale, root = std::sqrt(std::abs(weight));
    a.push_back(part.a);
    b.push_back(part.b);
    a_weights.push_back(weight < 0 ? -root : root);
    b_weights.push_back(root);
    a_keys.push_back(fmt::format("{} {} A {}", options.seed, module, part.adapter));
    b_keys.push_back(fmt::format("{} {} B {}", options.seed, module, part.adapter));
  }
  const double density = options.density.value_or(1);
  return {arithmetic(a, a_weights, type, density, a_keys), arithmetic(b, b_weights, type, density, b_keys), 1};
}

Product concatenated(const std::vector<Part>& parts) {
  std::vector<at::Tensor> a, b;
  for (const Part& part : parts) {
    a.push_back(part.a * (part.weight * part.scale));
    b.push_back(part.b);
  }
  return {at::cat(a), at::cat(b, 1), 1};
}

Product by_svd(const std::string& module, const std::vector<Part>& parts, const Type& type,
               const CombineOptions& options, int64_t largest_rank) {
  const int64_t smaller = std::min(parts[0].a.size(1), parts[0].b.size(0));
  if (options.rank > smaller)
    fail(Exit::usage, "rank: {} is above what {} [{}, {}] can have: {}", options.rank, module, parts[0].b.size(0),
         parts[0].a.size(1), smaller);
  Decomposition d;
  if (type.prune == Prune::none) {
    const Product sum = concatenated(parts);
    d = decompose(sum.b, sum.a);
  } else {
    std::vector<at::Tensor> products;
    std::vector<double> weights;
    std::vector<std::string> keys;
    for (const Part& part : parts) {
      products.push_back(at::mm(part.b, part.a) * part.scale);
      weights.push_back(part.weight);
      keys.push_back(fmt::format("{} {} {}", options.seed, module, part.adapter));
    }
    std::tie(d.u, d.s, d.vt) = at::linalg_svd(arithmetic(products, weights, type, *options.density, keys), false);
  }
  const int64_t rank = std::min(options.rank > 0 ? options.rank : largest_rank, d.s.size(0));
  return {d.vt.slice(0, 0, rank), d.u.slice(1, 0, rank) * d.s.slice(0, 0, rank), 1};
}

std::vector<Part> parts_of(const std::string& module, const std::vector<ProductAdapter>& adapters,
                           const CombineOptions& options) {
  std::vector<Part> parts;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto found = adapters[i].modules.find(module);
    if (found == adapters[i].modules.end()) continue;
    const Product& product = found->second;
    parts.push_back({product.a.to(at::kDouble), product.b.to(at::kDouble), product.scale,
                     options.weights.empty() ? 1 : options.weights[i], i});
    check_same_weight(module, adapters[parts[0].adapter], adapters[i]);
  }
  return parts;
}

}  // namespace

std::vector<std::string> combination_types() {
  std::vector<std::string> names;
  for (const Type& type : types) names.emplace_back(type.name);
  return names;
}

Decomposition decompose(const at::Tensor& b, const at::Tensor& a) {
  const at::NoGradGuard no_grad;
  const at::Tensor left = b.to(at::kDouble), right = a.to(at::kDouble);
  Decomposition d;
  if (a.size(0) >= std::min(b.size(0), a.size(1))) {
    std::tie(d.u, d.s, d.vt) = at::linalg_svd(at::mm(left, right), false);
    return d;
  }
  // b a = Qb (Rb Raᵀ) Qaᵀ: the inner matrix is r x r.
  const auto [qb, rb] = at::linalg_qr(left);
  const auto [qa, ra] = at::linalg_qr(right.t());
  const auto [u, s, vt] = at::linalg_svd(at::mm(rb, ra.t()), false);
  return {at::mm(qb, u), s, at::mm(vt, qa.t())};
}

ProductAdapter combine(const std::vector<ProductAdapter>& adapters, const CombineOptions& options) {
  const at::NoGradGuard no_grad;
  const Type& type = type_named(options.type);
  check_options(type, options, adapters.size());
  std::set<std::string> modules;
  int64_t largest_rank = 0;
  for (const ProductAdapter& adapter : adapters)
    for (const auto& [module, product] : adapter.modules) {
      modules.insert(module);
      largest_rank = std::max(largest_rank, product.a.size(0));
    }
  ProductAdapter combined{options.type, common_choice(adapters, modules), common_origin(adapters), {}};
  for (const std::string& module : modules) {
    const std::vector<Part> parts = parts_of(module, adapters, options);
    const Product product = type.form == Form::cat       ? concatenated(parts)
                            : type.form == Form::factors ? by_factors(module, parts, type, options, adapters)
                                                         : by_svd(module, parts, type, options, largest_rank);
    combined.modules[module] = {product.a.to(at::kFloat).contiguous(), product.b.to(at::kFloat).contiguous(), 1};
  }
  return combined;
}

}  // namespace retort
