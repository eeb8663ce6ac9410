#include "models/rope.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

namespace retort {
namespace {

/// Radians a position for each pair, f64 [head_dim / 2].
at::Tensor frequencies(const ModelConfig& config) {
  const int64_t pairs = config.head_dim / 2;
  at::Tensor result = at::empty({pairs}, at::kDouble);
  auto* frequency = result.mutable_data_ptr<double>();
  for (int64_t i = 0; i < pairs; ++i) {
    frequency[i] = std::pow(config.rope_theta, -static_cast<double>(i) / static_cast<double>(pairs));
    frequency[i] /= config.rope_linear_factor;
    if (const auto& scaling = config.llama3) {
      // Wavelengths longer than the original context are stretched by `factor`, short ones kept, those between blended.
      const double turns = static_cast<double>(scaling->original_context) * frequency[i] / (2 * std::numbers::pi);
      const double kept = (turns - scaling->low_freq_factor) / (scaling->high_freq_factor - scaling->low_freq_factor);
      const double share = std::clamp(kept, 0.0, 1.0);
      frequency[i] *= share + (1 - share) / scaling->factor;
    } else if (!config.rope_factors.empty()) {
      frequency[i] /= config.rope_factors[static_cast<size_t>(i)];
    }
  }
  return result;
}

}  // namespace

Rotary rotary(const ModelConfig& config, const std::vector<int64_t>& offsets, at::ScalarType dtype, at::Device device) {
  at::Tensor positions = at::arange(offsets.back(), at::kDouble);
  for (size_t d = 0; d + 1 < offsets.size(); ++d) positions.slice(0, offsets[d], offsets[d + 1]).sub_(offsets[d]);
  // In f64: position times frequency loses 1e-3 radians in f32 at position 10,000.
  const at::Tensor angles = at::outer(positions, frequencies(config));
  return {angles.cos().to(device, dtype), angles.sin().to(device, dtype)};
}

void rotate(at::Tensor x, const Rotary& angles, bool inverse) {
  const int64_t tokens = x.size(0), pairs = angles.cos.size(1);
  const at::Tensor halves = x.view({tokens, -1, 2, pairs});
  at::Tensor a = halves.select(2, 0), b = halves.select(2, 1);
  const at::Tensor cos = angles.cos.unsqueeze(1), sin = (inverse ? angles.sin.neg() : angles.sin).unsqueeze(1);
  const at::Tensor turned = a * cos - b * sin;
  b.copy_(b * cos + a * sin);
  a.copy_(turned);
}

}  // namespace retort
