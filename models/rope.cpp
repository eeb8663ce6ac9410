#include "models/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

#include "models/simd.h"

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

template <typename T>
RETORT_INLINE void rotate_rows(T* x, const T* cos, const T* sin, int64_t rows, int64_t heads, int64_t pairs, T sign) {
  for (int64_t r = 0; r < rows; ++r, cos += pairs, sin += pairs)
    for (int64_t h = 0; h < heads; ++h, x += 2 * pairs)
      for (int64_t i = 0; i < pairs; ++i) {
        const T a = x[i], b = x[pairs + i], s = sign * sin[i];
        x[i] = a * cos[i] - b * s;
        x[pairs + i] = b * cos[i] + a * s;
      }
}
RETORT_SIMD void rotate(float* x, const float* cos, const float* sin, int64_t rows, int64_t heads, int64_t pairs,
                        float sign) {
  rotate_rows(x, cos, sin, rows, heads, pairs, sign);
}
RETORT_SIMD void rotate(double* x, const double* cos, const double* sin, int64_t rows, int64_t heads, int64_t pairs,
                        double sign) {
  rotate_rows(x, cos, sin, rows, heads, pairs, sign);
}

constexpr int64_t rows_a_task = 16;

void generic(const at::Tensor& x, const Rotary& angles, bool inverse) {
  const at::Tensor halves = x.view({x.size(0), -1, 2, angles.cos.size(1)});
  at::Tensor a = halves.select(2, 0), b = halves.select(2, 1);
  const at::Tensor cos = angles.cos.unsqueeze(1), sin = (inverse ? angles.sin.neg() : angles.sin).unsqueeze(1);
  const at::Tensor turned = a * cos - b * sin;
  b.copy_(b * cos + a * sin);
  a.copy_(turned);
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
  if (!has_loops(x)) return generic(x, angles, inverse);
  const int64_t pairs = angles.cos.size(1), heads = x.size(1) / (2 * pairs);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rotate", [&] {
    auto* data = x.mutable_data_ptr<scalar_t>();
    const auto *cos = angles.cos.const_data_ptr<scalar_t>(), *sin = angles.sin.const_data_ptr<scalar_t>();
    at::parallel_for(0, x.size(0), rows_a_task, [&](int64_t begin, int64_t end) {
      rotate(data + begin * heads * 2 * pairs, cos + begin * pairs, sin + begin * pairs, end - begin, heads, pairs,
             static_cast<scalar_t>(inverse ? -1 : 1));
    });
  });
}

}  // namespace retort
