#include "monitor/random_features.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/rng.h"

namespace retort {

RandomFeatures::RandomFeatures(size_t dimensions, double gamma, size_t frequencies, uint64_t seed)
    : dimensions_(dimensions), frequencies_(frequencies), gamma_(gamma), seed_(seed) {
  if (!(gamma > 0) || !std::isfinite(gamma) || dimensions == 0 || frequencies == 0) {
    fail(Exit::usage, "random features: gamma {}, {} dimensions and {} frequencies; all must be above 0", gamma,
         dimensions, frequencies);
  }
  weights_.resize(frequencies * dimensions);
  Rng rng(seed);
  const double scale = std::sqrt(2 * gamma);
  for (double& weight : weights_) {  // Box and Muller 1958
    const double radius = std::sqrt(-2 * std::log1p(-rng.uniform()));
    weight = scale * radius * std::cos(2 * std::numbers::pi * rng.uniform());
  }
}

void RandomFeatures::add(std::span<const double> x, std::span<double> sum) const {
  if (x.size() != dimensions_) {
    fail(Exit::bad_input, "random features: a row of {} numbers, expected {}", x.size(), dimensions_);
  }
  if (!std::all_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); })) {
    fail(Exit::bad_input, "random features: a row holds NaN or infinity");
  }
  const double scale = 1 / std::sqrt(static_cast<double>(frequencies_));
  const double* weight = weights_.data();
  for (size_t f = 0; f < frequencies_; ++f, weight += dimensions_) {
    double angle = 0;
    for (size_t i = 0; i < dimensions_; ++i) angle += weight[i] * x[i];
    sum[2 * f] += scale * std::cos(angle);
    sum[2 * f + 1] += scale * std::sin(angle);
  }
}

FeatureMean::FeatureMean(const RandomFeatures& features)
    : seed(features.seed()),
      dimensions(features.dimensions()),
      gamma(features.gamma()),
      sum(2 * features.frequencies()) {}

void FeatureMean::add(const RandomFeatures& features, std::span<const double> x) {
  if (features.seed() != seed || features.dimensions() != dimensions || features.gamma() != gamma ||
      2 * features.frequencies() != sum.size()) {
    fail(Exit::bad_input, "random features: a row of other features than the mean's");
  }
  features.add(x, sum);
  ++rows;
}

static void require_same(const FeatureMean& a, const FeatureMean& b) {
  if (a.seed == b.seed && a.dimensions == b.dimensions && a.gamma == b.gamma && a.sum.size() == b.sum.size()) return;
  fail(Exit::bad_input,
       "random features differ: {} dimensions, gamma {}, {} frequencies, seed {} against {}, {}, {}, {}; build both "
       "with the baseline's",
       a.dimensions, a.gamma, a.sum.size() / 2, a.seed, b.dimensions, b.gamma, b.sum.size() / 2, b.seed);
}

void FeatureMean::merge(const FeatureMean& other) {
  require_same(*this, other);
  rows += other.rows;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += other.sum[i];
}

Json FeatureMean::to_json() const {
  return {{"seed", seed}, {"dimensions", dimensions}, {"gamma", gamma}, {"rows", rows}, {"sum", sum}};
}

FeatureMean FeatureMean::from_json(const Json& json, const std::string& where) {
  FeatureMean mean;
  mean.seed = json_get<uint64_t>(json, "seed", where);
  mean.dimensions = json_get<uint64_t>(json, "dimensions", where);
  mean.gamma = json_get<double>(json, "gamma", where);
  mean.rows = json_get<int64_t>(json, "rows", where);
  mean.sum = json_get<std::vector<double>>(json, "sum", where);
  const auto limit = static_cast<double>(mean.rows) * (1 + 1e-9);  // of a sum of rows cosines
  if (mean.dimensions == 0 || !(mean.gamma > 0) || mean.rows < 0 || mean.sum.empty() || mean.sum.size() % 2 != 0 ||
      !std::all_of(mean.sum.begin(), mean.sum.end(), [&](double v) { return std::abs(v) <= limit; })) {
    fail(Exit::bad_input, "{}: a damaged mean of random features ({} rows, {} numbers, gamma {})", where, mean.rows,
         mean.sum.size(), mean.gamma);
  }
  return mean;
}

double median_gamma(std::span<const double> numbers, size_t dimensions, size_t limit) {
  if (dimensions == 0 || numbers.size() % dimensions != 0 || numbers.size() < 2 * dimensions) {
    fail(Exit::bad_input, "the median of distances needs at least two rows; got {} numbers in rows of {}",
         numbers.size(), dimensions);
  }
  const size_t rows = numbers.size() / dimensions, taken = std::min(rows, std::max<size_t>(limit, 2));
  std::vector<double> squared;
  squared.reserve(taken * (taken - 1) / 2);
  for (size_t i = 0; i < taken; ++i) {
    const double* a = &numbers[i * rows / taken * dimensions];
    for (size_t j = 0; j < i; ++j) {
      const double* b = &numbers[j * rows / taken * dimensions];
      double sum = 0;
      for (size_t k = 0; k < dimensions; ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
      squared.push_back(sum);
    }
  }
  const auto middle = squared.begin() + static_cast<std::ptrdiff_t>(squared.size() / 2);
  std::nth_element(squared.begin(), middle, squared.end());
  double median = *middle;
  if (squared.size() % 2 == 0) median = (median + *std::max_element(squared.begin(), middle)) / 2;
  return median > 0 ? 1 / median : 1;
}

double mmd2(const FeatureMean& a, const FeatureMean& b) {
  require_same(a, b);
  if (a.rows < 2 || b.rows < 2) fail(Exit::bad_input, "MMD needs two rows a sample; got {} and {}", a.rows, b.rows);
  const auto n = static_cast<double>(a.rows), m = static_cast<double>(b.rows);
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.sum.size(); ++i) {
    aa += a.sum[i] * a.sum[i];
    bb += b.sum[i] * b.sum[i];
    ab += a.sum[i] * b.sum[i];
  }
  return (aa - n) / (n * (n - 1)) + (bb - m) / (m * (m - 1)) - 2 * ab / (n * m);  // |Phi| = 1 on the diagonal
}

double mmd2_error_bound(int64_t n, int64_t m, size_t frequencies, double delta) {
  if (n < 2 || m < 2 || frequencies == 0 || !(delta > 0 && delta < 1)) {
    fail(Exit::usage, "error bound of random features: {} and {} rows, {} frequencies, delta {}", n, m, frequencies,
         delta);
  }
  const auto a = static_cast<double>(n) / static_cast<double>(n - 1);
  const auto b = static_cast<double>(m) / static_cast<double>(m - 1);
  return (a + b + 2) * std::sqrt(std::log(2 / delta) / (2 * static_cast<double>(frequencies)));
}

}  // namespace retort
