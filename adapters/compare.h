// How much adapters change, and how much alike two of them are.
#pragma once

#include "adapters/products.h"
#include "core/json.h"
#include "models/checkpoint.h"

namespace retort {

/// The share of a change's energy (sum of squared singular values) that "rank" counts directions for.
constexpr double kEnergy = 0.9;

/// Frobenius norms and products of what adapters add to each weight:
///   {"modules": [{"module", "size": [..], "rank": [..], "stored_rank": [..], "base"?, "cosine"?, "difference"?}],
///    "layers": the same by the module's last name over all layers, "rank" being a mean, and "count",
///    "all": the same over everything}
/// size: |change|, one an adapter; rank: fewest directions that hold kEnergy of it; base: |W|, with a base;
/// cosine: of two adapters' changes; difference: |second - first| / |first|. A module that an adapter does not have is
/// unchanged by it. Error(bad_input) for adapters, or a base, of other shapes.
Json compare(const std::vector<ProductAdapter>& adapters, const Checkpoint* base = nullptr);

}  // namespace retort
