// The null of a statistic, measured: the baseline's own rows, drawn again in blocks at the sizes of later checks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"

namespace retort {

/// How rows are drawn again: with replacement in blocks of consecutive rows (circular, so every row is as likely as any
/// other), which keeps the dependence between rows that lie less than a block apart.
struct Resampling {
  int64_t resamples = 2000;
  int64_t block = 1;  ///< rows; 1 for independent rows
  int64_t seed = 1;
};

/// Block length for the moving-block bootstrap of a series: Politis and White (2004) with the correction of Patton,
/// Politis and White (2009); between 1 and a third of the series. Constant series: 1.
int64_t block_length(std::span<const double> series);

/// [0, rows) in blocks of consecutive rows that begin anywhere and go around the end, dealt to two sides at random: the
/// first `current` rows, and the others. Error(bad_input) unless both sides get a row.
struct BlockSplit {
  std::vector<size_t> reference, current;
};
BlockSplit split_blocks(size_t rows, size_t current, int64_t block, uint64_t seed, uint64_t stream);

/// The statistic of two sets of the baseline's rows, named by their indices.
using RowStatistic = std::function<double(std::span<const size_t> reference, std::span<const size_t> current)>;

/// Null distribution of one statistic at one pair of sizes.
struct NullTable {
  int64_t reference = 0, current = 0;  ///< rows
  int64_t resamples = 0, block = 1;
  double order = 1;           ///< DetectorKind::order
  std::vector<double> lower;  ///< quantiles at 0, .05, ... .90
  std::vector<double> upper;  ///< the largest tenth, rising

  /// (1 + number of resamples at least as large) / (resamples + 1) for a sample of `current` rows; the statistic is
  /// brought to the table's size by (1/n + 1/m)^order. Exact for the largest tenth, rounded up to the next twentieth
  /// below.
  double p_value(double statistic, int64_t current_rows) const;
  /// The smallest statistic of a sample of `current` rows whose p-value is at most alpha. Error(usage) unless
  /// 1 / (resamples + 1) <= alpha <= 0.1.
  double limit(double alpha, int64_t current_rows) const;
  /// The statistic of a sample of `current` rows that chance exceeds in half of the resamples.
  double median() const { return lower[10]; }
  Json to_json() const;
  static NullTable from_json(const Json& json, const std::string& where);
};

/// Several statistics of the same pair.
using RowStatistics =
    std::function<std::vector<double>(std::span<const size_t> reference, std::span<const size_t> current)>;

/// Splits `rows` by blocks again and again and takes the statistics of each pair, each brought to `reference_rows` and
/// `current_rows` by (1/n + 1/m) to its order. One table an order. Error(bad_input) for fewer than two rows or 20
/// resamples, and for a statistic that is not finite; Error(retry) after a stop signal.
std::vector<NullTable> calibrate_nulls(size_t rows, size_t reference_rows, size_t current_rows,
                                       std::span<const double> orders, const RowStatistics& statistics,
                                       const Resampling& resampling);
/// Of one statistic.
NullTable calibrate_null(size_t rows, size_t reference_rows, size_t current_rows, double order,
                         const RowStatistic& statistic, const Resampling& resampling);

/// Of tables of one statistic at several sizes, the null of a sample of `current_rows`: between the tables of the next
/// smaller and the next larger size, linear in 1/m; beyond the outermost, that one. Each is brought to the size by
/// (1/n + 1/m)^order first. Error(bad_input) when there is no table.
NullTable null_at(std::span<const NullTable> tables, int64_t current_rows);

}  // namespace retort
