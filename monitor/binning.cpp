#include "monitor/binning.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/rng.h"

namespace retort {

/// The value of the sample's row `index`, counted from the smallest.
static double row_value(const Values& sample, int64_t index) {
  size_t i = 0;
  for (int64_t before = sample.counts[0]; before <= index; before += sample.counts[++i]) {
  }
  return sample.distinct[i];
}

std::vector<double> quantile_edges(const Values& sample, int bins) {
  std::vector<double> edges;
  size_t at = 0;
  int64_t upto = sample.counts[0];  // rows <= distinct[at]
  for (int b = 1; b < bins; ++b) {
    const int64_t row = (sample.total * b + bins - 1) / bins;  // 1-based rank
    while (upto < row) upto += sample.counts[++at];
    // A heavy value is cut off from what lies below it, else below and on it would be one bin.
    const double value = sample.distinct[at];
    if (sample.counts[at] > 1 && sample.counts[at] * bins >= sample.total)
      edges.push_back(std::nextafter(value, -INFINITY));
    edges.push_back(value);
  }
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  return edges;
}

std::vector<int64_t> bin_counts(const Values& sample, std::span<const double> edges) {
  std::vector<int64_t> counts(edges.size() + 1);
  size_t bin = 0;
  for (size_t i = 0; i < sample.distinct.size(); ++i) {
    while (bin < edges.size() && sample.distinct[i] > edges[bin]) ++bin;
    counts[bin] += sample.counts[i];
  }
  return counts;
}

std::vector<double> equal_width_edges(double low, double high, int64_t bins) {
  if (low == high) {
    low -= 0.5;
    high += 0.5;
  }
  std::vector<double> edges(static_cast<size_t>(bins) + 1);
  const double step = (high - low) / static_cast<double>(bins);
  for (size_t i = 0; i < edges.size(); ++i) edges[i] = low + static_cast<double>(i) * step;
  edges.back() = high;
  return edges;
}

static double range_of(const Values& sample) { return sample.distinct.back() - sample.distinct.front(); }

/// Bins of a width over the sample's range; one where the width is 0. A width far below the range is no sign of
/// structure but of an outlier, and numpy would run out of memory there.
static int64_t bins_of_width(const Values& sample, double width) {
  if (!(width > 0)) return 1;
  return static_cast<int64_t>(std::clamp(std::ceil(range_of(sample) / width), 1.0, 1e6));
}

static double sturges_width(const Values& sample) {
  return range_of(sample) / (std::log2(static_cast<double>(sample.total)) + 1);
}

int64_t sturges_bins(const Values& sample) { return bins_of_width(sample, sturges_width(sample)); }

int64_t doane_bins(const Values& sample) {
  const auto n = static_cast<double>(sample.total);
  const Moments m = moments(sample);
  if (sample.total < 3 || m.deviation == 0) return 1;
  double skewness = 0;
  for (size_t i = 0; i < sample.distinct.size(); ++i)
    skewness += static_cast<double>(sample.counts[i]) * std::pow((sample.distinct[i] - m.mean) / m.deviation, 3);
  skewness /= n;
  const double error = std::sqrt(6 * (n - 2) / ((n + 1) * (n + 3)));
  return bins_of_width(sample, range_of(sample) / (1 + std::log2(n) + std::log2(1 + std::abs(skewness) / error)));
}

int64_t auto_bins(const Values& sample) {
  const double fd =
      2 * (quantile(sample, 0.75) - quantile(sample, 0.25)) / std::cbrt(static_cast<double>(sample.total));
  const double sturges = sturges_width(sample);
  return bins_of_width(sample, fd > 0 ? std::min(fd, sturges) : sturges);
}

std::vector<int64_t> histogram(const Values& sample, std::span<const double> edges) {
  std::vector<int64_t> counts(edges.size() - 1);
  size_t bin = 0;
  for (size_t i = 0; i < sample.distinct.size(); ++i) {
    const double value = sample.distinct[i];
    if (value < edges.front() || value > edges.back()) continue;
    while (bin + 1 < counts.size() && value >= edges[bin + 1]) ++bin;
    counts[bin] += sample.counts[i];
  }
  return counts;
}

double quantile(const Values& sample, double probability) {
  const double rank = probability * static_cast<double>(sample.total - 1);
  const auto below = static_cast<int64_t>(rank);
  const double low = row_value(sample, below), high = row_value(sample, std::min(below + 1, sample.total - 1));
  return low + (rank - static_cast<double>(below)) * (high - low);
}

Moments moments(const Values& sample) {
  const auto n = static_cast<double>(sample.total);
  double mean = 0, squares = 0;
  for (size_t i = 0; i < sample.distinct.size(); ++i)
    mean += static_cast<double>(sample.counts[i]) / n * sample.distinct[i];
  for (size_t i = 0; i < sample.distinct.size(); ++i)
    squares += static_cast<double>(sample.counts[i]) / n * (sample.distinct[i] - mean) * (sample.distinct[i] - mean);
  return {mean, sample.distinct.size() == 1 ? 0 : std::sqrt(squares)};
}

int64_t total_of(std::span<const int64_t> counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

Shares shares(std::span<const int64_t> reference, std::span<const int64_t> current) {
  const auto n = static_cast<double>(total_of(reference)), m = static_cast<double>(total_of(current));
  Shares shares;
  for (size_t i = 0; i < reference.size(); ++i) {
    shares.p.push_back(static_cast<double>(reference[i]) / n);
    shares.q.push_back(static_cast<double>(current[i]) / m);
  }
  return shares;
}

Shares evidently_shares(const Pooled& pooled) {
  const Values reference = side(pooled, pooled.reference), current = side(pooled, pooled.current);
  if (reference.distinct.size() <= 20) return shares(pooled.reference, pooled.current);
  Values both{pooled.distinct, pooled.reference, reference.total + current.total};
  for (size_t i = 0; i < both.counts.size(); ++i) both.counts[i] += pooled.current[i];
  const auto edges = equal_width_edges(both.distinct.front(), both.distinct.back(), sturges_bins(both));
  return shares(histogram(reference, edges), histogram(current, edges));
}

double binned_p_value(std::span<const int64_t> reference, std::span<const int64_t> current, double observed,
                      const DetectorOptions& options, const CountStatistic& statistic,
                      const std::function<double()>& tail) {
  const int64_t n = total_of(reference), m = total_of(current);
  constexpr int64_t kMost = 20'000'000;  // the urn remembers every row
  if ((n >= kManyRows && m >= kManyRows) || m > kMost) return tail();
  // n rows leave n + 1 gaps. A bin ends with a row, so it has a gap for each of its rows; the last also has what lies
  // above the largest row.
  std::vector<double> gaps(reference.size());
  double sum = 0;
  for (size_t i = 0; i < gaps.size(); ++i) gaps[i] = sum += static_cast<double>(reference[i] + (i + 1 == gaps.size()));
  std::vector<uint32_t> drawn(static_cast<size_t>(m));
  std::vector<int64_t> counts(reference.size());
  Rng rng(static_cast<uint64_t>(options.seed));
  return resampled_p_value(observed, options, [&](int64_t) {
    std::fill(counts.begin(), counts.end(), 0);
    for (size_t t = 0; t < drawn.size(); ++t) {
      const double at = rng.uniform() * (sum + static_cast<double>(t));
      if (at < sum) {
        const auto bin = std::upper_bound(gaps.begin(), gaps.end(), at) - gaps.begin();
        drawn[t] = static_cast<uint32_t>(std::min<std::ptrdiff_t>(bin, std::ssize(gaps) - 1));
      } else {
        drawn[t] = drawn[std::min(static_cast<size_t>(at - sum), t - 1)];
      }
      ++counts[drawn[t]];
    }
    return statistic(reference, counts);
  });
}

double category_p_value(std::span<const int64_t> reference, std::span<const int64_t> current, double observed,
                        const DetectorOptions& options, const CountStatistic& statistic,
                        const std::function<double()>& tail) {
  if (total_of(reference) >= kManyRows && total_of(current) >= kManyRows) return tail();
  return permutation_p_value(pool(reference, current), observed, options,
                             [&](const Pooled& split) { return statistic(split.reference, split.current); });
}

double size_factor(std::span<const int64_t> reference, std::span<const int64_t> current) {
  return 1 / static_cast<double>(total_of(reference)) + 1 / static_cast<double>(total_of(current));
}

double degrees_of_freedom(std::span<const int64_t> reference, std::span<const int64_t> current) {
  double used = -1;
  for (size_t i = 0; i < reference.size(); ++i) used += reference[i] + current[i] > 0;
  return used;
}

}  // namespace retort
