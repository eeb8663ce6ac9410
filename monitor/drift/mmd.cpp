// Maximum mean discrepancy with a Gaussian kernel, unbiased (Gretton et al. 2012); p by permutation.
//
// Up to kMostRows rows by the kernel of every pair; above, and for means that a profile holds, by random Fourier
// features in linear time (monitor/random_features.h has the bound on the difference).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

constexpr size_t kMostRows = 4000;

/// Sums of the kernel over ordered pairs of different rows: within both, within one group, and of that group with all.
struct PairSums {
  double all = 0, group = 0, group_all = 0;
};

/// The statistic of a group of `size` out of `rows` rows against the rest.
static double mmd2_of(const PairSums& sums, double size, double rows) {
  const double rest = rows - size, across = sums.group_all - sums.group;
  return sums.group / (size * (size - 1)) + (sums.all - 2 * across - sums.group) / (rest * (rest - 1)) -
         2 * across / (size * rest);
}

/// How far the means lie apart against the spread of the rows around their mean.
static double effect_of(double statistic, double mean_kernel) {
  return mean_kernel < 1 ? std::sqrt(std::max(0.0, statistic) / (1 - mean_kernel)) : 0;
}

static double median(std::vector<double> numbers) {
  const auto middle = numbers.begin() + std::ssize(numbers) / 2;
  std::nth_element(numbers.begin(), middle, numbers.end());
  return numbers.size() % 2 == 1 ? *middle : (*middle + *std::max_element(numbers.begin(), middle)) / 2;
}

static double squared_distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

static double gamma_of(const Vectors& reference, const Vectors& current, std::span<const double> pooled,
                       const DetectorOptions& options) {
  if (options.gamma) return *options.gamma;
  if (options.profile == "frouros") return 0.5;  // sigma = 1
  if (options.profile == "retort") return median_gamma(pooled, reference.dimensions);
  std::vector<double> across;  // Evidently: of the first thousand of each
  for (size_t i = 0; i < std::min<size_t>(reference.rows(), 1000); ++i)
    for (size_t j = 0; j < std::min<size_t>(current.rows(), 1000); ++j)
      across.push_back(std::sqrt(squared_distance(reference.row(i), current.row(j))));
  const double middle = median(std::move(across));
  return middle > 0 ? 1 / (middle * middle) : 1;
}

/// Draws which rows make the group: `order` starts with them.
static void draw_group(std::vector<uint32_t>& order, size_t size, Rng& rng) {
  for (size_t i = 0; i < size; ++i) std::swap(order[i], order[i + rng.below(order.size() - i)]);
}

/// p-value by permutation, where `sums` gives the sums of the group of rows order[0, size).
template <typename Sums>
static double p_value_of(double observed, size_t size, size_t rows, const DetectorOptions& options, const Sums& sums) {
  std::vector<uint32_t> order(rows);
  std::iota(order.begin(), order.end(), 0U);
  Rng rng(static_cast<uint64_t>(options.seed));
  return resampled_p_value(observed, options, [&](int64_t) {
    draw_group(order, size, rng);
    return mmd2_of(sums(order), static_cast<double>(size), static_cast<double>(rows));
  });
}

static Detection by_kernel(const Vectors& pooled, size_t n, double gamma, const DetectorOptions& options) {
  const size_t rows = pooled.rows(), size = std::min(n, rows - n);
  std::vector<double> kernel(rows * rows), row_sums(rows);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < i; ++j) {
      const double k = std::exp(-gamma * squared_distance(pooled.row(i), pooled.row(j)));
      kernel[i * rows + j] = kernel[j * rows + i] = k;
      row_sums[i] += k;
      row_sums[j] += k;
    }
  }
  const double all = std::accumulate(row_sums.begin(), row_sums.end(), 0.0);
  const auto sums = [&](std::span<const uint32_t> order) {
    PairSums sums{.all = all};
    for (size_t i = 0; i < size; ++i) {
      const double* row = &kernel[order[i] * rows];
      double sum = 0;
      for (size_t j = 0; j < i; ++j) sum += row[order[j]];
      sums.group += 2 * sum;
      sums.group_all += row_sums[order[i]];
    }
    return sums;
  };
  std::vector<uint32_t> first(rows);  // the smaller sample's rows come first
  std::iota(first.begin(), first.end(), 0U);
  if (size < n) std::rotate(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(n), first.end());
  Detection detection;
  detection.statistic = mmd2_of(sums(first), static_cast<double>(size), static_cast<double>(rows));
  detection.effect = effect_of(detection.statistic, all / static_cast<double>(rows * (rows - 1)));
  if (options.p_value) detection.p_value = p_value_of(detection.statistic, size, rows, options, sums);
  return detection;
}

static Detection by_features(const Vectors& pooled, size_t n, double gamma, const DetectorOptions& options) {
  const size_t rows = pooled.rows(), size = std::min(n, rows - n);
  const RandomFeatures features(pooled.dimensions, gamma, 512, static_cast<uint64_t>(options.seed));
  const size_t width = 2 * features.frequencies();
  std::vector<float> mapped(rows * width);
  std::vector<double> total(width), one(width);
  for (size_t i = 0; i < rows; ++i) {
    std::fill(one.begin(), one.end(), 0.0);
    features.add(pooled.row(i), one);
    for (size_t k = 0; k < width; ++k) {
      total[k] += one[k];
      mapped[i * width + k] = static_cast<float>(one[k]);
    }
  }
  const auto square = [](std::span<const double> v) { return std::inner_product(v.begin(), v.end(), v.begin(), 0.0); };
  const double all = square(total) - static_cast<double>(rows);
  std::vector<double> group(width);
  const auto sums = [&](std::span<const uint32_t> order) {
    std::fill(group.begin(), group.end(), 0.0);
    for (size_t i = 0; i < size; ++i) {
      const float* row = &mapped[order[i] * width];
      for (size_t k = 0; k < width; ++k) group[k] += row[k];
    }
    const double own = static_cast<double>(size);  // |Phi| = 1 on the diagonal
    return PairSums{.all = all,
                    .group = square(group) - own,
                    .group_all = std::inner_product(group.begin(), group.end(), total.begin(), 0.0) - own};
  };
  std::vector<uint32_t> first(rows);
  std::iota(first.begin(), first.end(), 0U);
  if (size < n) std::rotate(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(n), first.end());
  Detection detection;
  detection.statistic = mmd2_of(sums(first), static_cast<double>(size), static_cast<double>(rows));
  detection.effect = effect_of(detection.statistic, all / (static_cast<double>(rows) * static_cast<double>(rows - 1)));
  detection.details["frequencies"] = static_cast<double>(features.frequencies());
  if (options.p_value) detection.p_value = p_value_of(detection.statistic, size, rows, options, sums);
  return detection;
}

static void require_two(int64_t reference, int64_t current) {
  if (reference >= 2 && current >= 2) return;
  fail(Exit::bad_input, "detector mmd: {} and {} rows; the unbiased statistic needs two a sample", reference, current);
}

static Detection of_vectors(const Vectors& reference, const Vectors& current, const DetectorOptions& options) {
  require_two(std::ssize(reference.numbers) / static_cast<int64_t>(reference.dimensions),
              std::ssize(current.numbers) / static_cast<int64_t>(current.dimensions));
  std::vector<double> numbers(reference.numbers.begin(), reference.numbers.end());
  numbers.insert(numbers.end(), current.numbers.begin(), current.numbers.end());
  const Vectors pooled{numbers, reference.dimensions};
  const double gamma = gamma_of(reference, current, numbers, options);
  Detection detection = pooled.rows() <= kMostRows ? by_kernel(pooled, reference.rows(), gamma, options)
                                                   : by_features(pooled, reference.rows(), gamma, options);
  detection.details["gamma"] = gamma;
  if (options.profile == "evidently") {
    detection.effect = detection.statistic;
    detection.limit = 0.015;
  } else if (options.profile == "frouros") {
    detection.effect = detection.statistic;
    detection.limit = 0.1;
  }
  return detection;
}

static Detection of_means(const FeatureMean& reference, const FeatureMean& current, const DetectorOptions& options) {
  // The others' bandwidths are of rows, and their limits of such a statistic.
  if (options.profile != "retort")
    fail(Exit::usage, "mmd of a profile's means has no profile {}; it needs rows, leave the key out", options.profile);
  require_two(reference.rows, current.rows);
  FeatureMean both = reference;
  both.merge(current);
  const auto rows = static_cast<double>(both.rows);
  double square = 0;
  for (double sum : both.sum) square += sum * sum;
  Detection detection;
  detection.statistic = mmd2(reference, current);
  detection.effect = effect_of(detection.statistic, (square - rows) / (rows * (rows - 1)));
  detection.p_value = NAN;  // the means alone do not say how much rows differ: a calibrated null does
  detection.details["gamma"] = reference.gamma;
  detection.details["frequencies"] = static_cast<double>(reference.sum.size() / 2);
  return detection;
}

extern const DetectorKind detector_mmd;
const DetectorKind detector_mmd{
    .summary = "maximum mean discrepancy of vectors with a Gaussian kernel, by permutation",
    .effect =
        "square root of MMD^2 over the rows' scatter in the kernel's space; many coordinates of normals that all "
        "shift by d deviations give about 0.76 d",
    .limit = 0.15,
    .order = 1,
    .profiles = {"retort", "evidently", "frouros"},
    .of_vectors = of_vectors,
    .of_means = of_means};

}  // namespace retort
