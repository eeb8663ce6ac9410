// Several adapters on one base made into one, as PEFT's add_weighted_adapter does it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "adapters/products.h"

namespace retort {

struct CombineOptions {
  std::string type = "svd";          ///< PEFT's combination_type
  std::vector<double> weights = {};  ///< one an adapter, of any sign; empty: 1 each
  int64_t rank = 0;                  ///< of the types that end in svd; 0: the largest of the adapters
  /// Share of the numbers that ties, dare and magnitude_prune keep; above 0, at most 1.
  std::optional<double> density = {};
  uint64_t seed = 0;  ///< of what dare drops
};

/// What `type` can be: with w a weight and s B A a product,
///   cat             sum of w s B A exactly; ranks add up
///   svd             the best approximation of that sum with a given rank
///   linear          (sum of ±sqrt(|w s|) B) (sum of sqrt(|w s|) A): cross terms come in; ranks must be equal
///   ties            as linear, but only the largest numbers of each factor, and where signs disagree those of the
///                   larger mass (https://arxiv.org/abs/2306.01708)
///   dare_linear     as linear, but random numbers of each factor, divided by their share
///   dare_ties       both (https://arxiv.org/abs/2311.03099)
///   magnitude_prune as linear, but only the largest numbers
///   *_svd           the same four on the products themselves instead of on factors, then svd
std::vector<std::string> combination_types();

/// A module that only some of the adapters have is made of those. Error(usage) for options that are out of range or do
/// not belong to the type, and for ranks above a weight's dimensions or, by factors, not equal; Error(bad_input) naming
/// the module for adapters of different bases.
ProductAdapter combine(const std::vector<ProductAdapter>& adapters, const CombineOptions& options);

/// b a = u diag(s) vᵀ, f64, with at most as many singular values as b has columns; neither needs [out, in] numbers when
/// the rank is small.
struct Decomposition {
  at::Tensor u, s, vt;
};
Decomposition decompose(const at::Tensor& b, const at::Tensor& a);

}  // namespace retort
