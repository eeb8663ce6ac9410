// Bins of a scalar signal, and what chance makes of the counts in them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

/// Inner edges of `bins` bins (e_i-1, e_i] of about equal counts: quantiles of the sample that are values of it. A
/// repeated value that alone fills a bin gets one of its own, so that what falls on either side of it shows. Fewer bins
/// where values repeat; none of a constant sample's neighbours fall with it.
std::vector<double> quantile_edges(const Values& sample, int bins);
/// Counts in the edges.size() + 1 bins (e_i-1, e_i], the outer ones open.
std::vector<int64_t> bin_counts(const Values& sample, std::span<const double> edges);

/// As numpy.histogram_bin_edges: `bins` equal widths over the range, half a unit to either side of a constant.
std::vector<double> equal_width_edges(double low, double high, int64_t bins);
/// numpy's "sturges" of a sample: its number of bins.
int64_t sturges_bins(const Values& sample);
/// numpy's "doane".
int64_t doane_bins(const Values& sample);
/// numpy's "auto" as of 2.1: the narrower of Freedman-Diaconis' width and Sturges'.
int64_t auto_bins(const Values& sample);
/// As numpy.histogram: [e_i, e_i+1), the last closed; what lies outside is not counted.
std::vector<int64_t> histogram(const Values& sample, std::span<const double> edges);

/// As numpy.quantile: linear between order statistics.
double quantile(const Values& sample, double probability);
/// Mean and standard deviation (divided by n).
struct Moments {
  double mean, deviation;
};
Moments moments(const Values& sample);

/// Shares p and q of two samples' counts in the same bins. Zeros stay.
struct Shares {
  std::vector<double> p, q;
};
Shares shares(std::span<const int64_t> reference, std::span<const int64_t> current);

/// Evidently's: Sturges' bins on both samples together, or each value where the reference has at most twenty.
Shares evidently_shares(const Pooled& pooled);

/// A statistic of counts in the same bins.
using CountStatistic = std::function<double(std::span<const int64_t> reference, std::span<const int64_t> current)>;

/// p-value of a statistic of counts in bins whose edges are values of the reference. Where a sample has fewer than
/// kManyRows rows by its exact null: each next row falls into one of the gaps between the rows before it, all equally
/// likely (Polya's urn), whatever the distribution. Else by `tail`, the statistic's asymptotic law.
double binned_p_value(std::span<const int64_t> reference, std::span<const int64_t> current, double observed,
                      const DetectorOptions& options, const CountStatistic& statistic,
                      const std::function<double()>& tail);
/// The same of categories, whose counts are random in both samples: by permutation, else by `tail`.
double category_p_value(std::span<const int64_t> reference, std::span<const int64_t> current, double observed,
                        const DetectorOptions& options, const CountStatistic& statistic,
                        const std::function<double()>& tail);
constexpr int64_t kManyRows = 5000;

int64_t total_of(std::span<const int64_t> counts);
/// 1/n + 1/m.
double size_factor(std::span<const int64_t> reference, std::span<const int64_t> current);
/// Categories that occur in either sample, less one.
double degrees_of_freedom(std::span<const int64_t> reference, std::span<const int64_t> current);

}  // namespace retort
