#include "monitor/calibration.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "core/signals.h"

namespace retort {

int64_t block_length(std::span<const double> series) {
  const auto n = static_cast<double>(series.size());
  if (series.size() < 9) return 1;
  double mean = 0;
  for (double value : series) {
    if (!std::isfinite(value)) fail(Exit::bad_input, "block length: the series holds NaN or infinity");
    mean += value / n;
  }
  const auto covariance = [&](size_t lag) {
    double sum = 0;
    for (size_t i = lag; i < series.size(); ++i) sum += (series[i] - mean) * (series[i - lag] - mean);
    return sum / n;
  };
  const double variance = covariance(0);
  if (variance <= 1e-24 * mean * mean) return 1;
  // The smallest lag after which five or more autocorrelations in a row are within chance of 0.
  const auto run = static_cast<size_t>(std::max(5.0, std::ceil(std::sqrt(std::log10(n)))));
  const size_t most = static_cast<size_t>(std::ceil(std::sqrt(n))) + run;
  const double chance = 2 * std::sqrt(std::log10(n) / n);
  std::vector<double> covariances{variance};
  size_t last = 0;  // lag that is not within chance
  for (size_t lag = 1; lag <= std::min(most, series.size() - 1) && lag - last <= run; ++lag) {
    covariances.push_back(covariance(lag));
    if (std::abs(covariances[lag] / variance) > chance) last = lag;
  }
  if (last == 0) return 1;
  // A flat-top window of twice that lag gives the two sums of the optimal length, for circular blocks.
  const size_t window = std::min(2 * last, series.size() - 1);
  double spectrum = variance, slope = 0;
  for (size_t lag = 1; lag <= window; ++lag) {
    const double at = static_cast<double>(lag) / static_cast<double>(window);
    const double weight = at <= 0.5 ? 1 : 2 * (1 - at);
    const double here = lag < covariances.size() ? covariances[lag] : covariance(lag);
    spectrum += 2 * weight * here;
    slope += 2 * weight * static_cast<double>(lag) * here;
  }
  const double longest = std::max(1.0, std::min(std::ceil(3 * std::sqrt(n)), n / 3));
  if (!(spectrum > 0)) return static_cast<int64_t>(longest);
  const double length = std::cbrt(2 * slope * slope / (4.0 / 3 * spectrum * spectrum) * n);
  return static_cast<int64_t>(std::clamp(std::ceil(length), 1.0, longest));
}

BlockSplit split_blocks(size_t rows, size_t current, int64_t block, uint64_t seed, uint64_t stream) {
  if (current == 0 || current >= rows || block < 1)
    fail(Exit::bad_input, "{} of {} rows in blocks of {}", current, rows, block);
  Rng rng(seed, stream);
  const size_t start = rng.below(rows), length = static_cast<size_t>(block);
  std::vector<size_t> firsts;
  for (size_t first = 0; first < rows; first += length) firsts.push_back(first);
  rng.shuffle(std::span(firsts));
  BlockSplit split;
  for (size_t first : firsts) {
    for (size_t i = first; i < std::min(first + length, rows); ++i)
      (split.current.size() < current ? split.current : split.reference).push_back((start + i) % rows);
  }
  return split;
}

std::vector<NullTable> calibrate_nulls(size_t rows, size_t reference_rows, size_t current_rows,
                                       std::span<const double> orders, const RowStatistics& statistics,
                                       const Resampling& resampling) {
  if (reference_rows == 0 || current_rows == 0 || resampling.resamples < 20) {
    fail(Exit::bad_input,
         "a null of {} against {} rows from {} resamples: both need a row, and 20 resamples are the least",
         reference_rows, current_rows, resampling.resamples);
  }
  if (rows < 2) fail(Exit::bad_input, "a null from {} rows; it needs two", rows);
  // No row on both sides, as no row of the traffic is one of the baseline: what only one row has would seem usual. So
  // at most half of the rows stand for the traffic, and the statistic is brought to the sizes that are asked for.
  const size_t drawn = std::min(current_rows, rows / 2), left = std::min(reference_rows, rows - drawn);
  const auto inverse = [](size_t a, size_t b) { return 1 / static_cast<double>(a) + 1 / static_cast<double>(b); };
  const double scale = inverse(reference_rows, current_rows) / inverse(left, drawn);
  std::vector<std::vector<double>> all(orders.size());
  for (int64_t r = 0; r < resampling.resamples; ++r) {
    if (stop_signal()) fail(Exit::retry, "stopped by a signal while resampling; the profile is as it was");
    BlockSplit split = split_blocks(rows, drawn, resampling.block, static_cast<uint64_t>(resampling.seed),
                                    static_cast<uint64_t>(r + 1));
    split.reference.resize(left);
    const std::vector<double> drawn_statistics = statistics(split.reference, split.current);
    for (size_t s = 0; s < all.size(); ++s) {
      all[s].push_back(std::pow(scale, orders[s]) * drawn_statistics.at(s));
      if (!std::isfinite(all[s].back())) fail(Exit::bad_input, "a statistic of {} in a resample", all[s].back());
    }
  }
  std::vector<NullTable> tables;
  for (size_t s = 0; s < all.size(); ++s) {
    std::vector<double>& sorted = all[s];
    std::sort(sorted.begin(), sorted.end());
    NullTable& table = tables.emplace_back(NullTable{.reference = static_cast<int64_t>(reference_rows),
                                                     .current = static_cast<int64_t>(current_rows),
                                                     .resamples = resampling.resamples,
                                                     .block = resampling.block,
                                                     .order = orders[s],
                                                     .lower = {},
                                                     .upper = {}});
    for (size_t i = 0; i <= 18; ++i) table.lower.push_back(sorted[i * sorted.size() / 20]);
    table.upper.assign(sorted.end() - static_cast<std::ptrdiff_t>(sorted.size() / 10), sorted.end());
  }
  return tables;
}

NullTable calibrate_null(size_t rows, size_t reference_rows, size_t current_rows, double order,
                         const RowStatistic& statistic, const Resampling& resampling) {
  const RowStatistics alone = [&](std::span<const size_t> reference, std::span<const size_t> current) {
    return std::vector<double>{statistic(reference, current)};
  };
  return calibrate_nulls(rows, reference_rows, current_rows, std::span(&order, 1), alone, resampling).front();
}

/// What a statistic at `current_rows` is multiplied with to be one at the table's size.
static double to_size_of(const NullTable& table, int64_t current_rows) {
  if (current_rows < 1) fail(Exit::bad_input, "a sample of {} rows; it needs one", current_rows);
  const double reference = 1 / static_cast<double>(table.reference);
  return std::pow(
      (reference + 1 / static_cast<double>(table.current)) / (reference + 1 / static_cast<double>(current_rows)),
      table.order);
}

double NullTable::p_value(double statistic, int64_t current_rows) const {
  const double scaled = statistic * to_size_of(*this, current_rows), tolerance = 1e-12 * std::abs(scaled);
  const auto from = std::lower_bound(upper.begin(), upper.end(), scaled - tolerance);
  if (scaled + tolerance >= upper.front())
    return static_cast<double>(1 + (upper.end() - from)) / static_cast<double>(resamples + 1);
  // Below the largest tenth: the largest stored quantile that is not above the statistic bounds p from above.
  const auto above = std::upper_bound(lower.begin(), lower.end(), scaled + tolerance);
  if (above == lower.begin()) return 1;
  const auto index = static_cast<double>(above - lower.begin() - 1);
  return std::min(1.0, 1 - index / 20 + 1 / static_cast<double>(resamples + 1));
}

double NullTable::limit(double alpha, int64_t current_rows) const {
  // Rejected from the smallest stored value that has few enough at or above it.
  const auto allowed = static_cast<int64_t>(std::floor(alpha * static_cast<double>(resamples + 1) + 1e-9)) - 1;
  if (allowed < 0 || allowed > std::ssize(upper)) {
    fail(Exit::usage, "a limit at alpha {} from {} resamples; alpha lies between {:.6f} and 0.1", alpha, resamples,
         1 / static_cast<double>(resamples + 1));
  }
  const double at =
      allowed == 0 ? std::nextafter(upper.back(), INFINITY) : upper[upper.size() - static_cast<size_t>(allowed)];
  return at / to_size_of(*this, current_rows);
}

Json NullTable::to_json() const {
  return {{"reference", reference}, {"current", current}, {"resamples", resamples}, {"block", block},
          {"order", order},         {"lower", lower},     {"upper", upper}};
}

NullTable NullTable::from_json(const Json& json, const std::string& where) {
  NullTable table{.reference = json_get<int64_t>(json, "reference", where),
                  .current = json_get<int64_t>(json, "current", where),
                  .resamples = json_get<int64_t>(json, "resamples", where),
                  .block = json_get<int64_t>(json, "block", where),
                  .order = json_get<double>(json, "order", where),
                  .lower = json_get<std::vector<double>>(json, "lower", where),
                  .upper = json_get<std::vector<double>>(json, "upper", where)};
  if (table.reference < 1 || table.current < 1 || table.resamples < 20 || table.lower.size() != 19 ||
      std::ssize(table.upper) != table.resamples / 10 || !std::is_sorted(table.lower.begin(), table.lower.end()) ||
      !std::is_sorted(table.upper.begin(), table.upper.end()) || table.upper.front() < table.lower.back()) {
    fail(Exit::bad_input, "{}: a damaged null table ({} resamples, {} and {} quantiles)", where, table.resamples,
         table.lower.size(), table.upper.size());
  }
  return table;
}

static NullTable brought_to(NullTable table, int64_t current_rows) {
  const double scale = to_size_of(table, current_rows);
  for (std::vector<double>* quantiles : {&table.lower, &table.upper}) {
    for (double& quantile : *quantiles) quantile /= scale;
  }
  table.current = current_rows;
  return table;
}

NullTable null_at(std::span<const NullTable> tables, int64_t current_rows) {
  if (tables.empty()) fail(Exit::bad_input, "no null was calibrated for this statistic");
  const NullTable *below = nullptr, *above = nullptr;
  for (const NullTable& table : tables) {
    if (table.current <= current_rows && (!below || table.current > below->current)) below = &table;
    if (table.current >= current_rows && (!above || table.current < above->current)) above = &table;
  }
  if (!below || !above || below->current == above->current) return brought_to(below ? *below : *above, current_rows);
  const NullTable larger = brought_to(*above, current_rows);
  NullTable between = brought_to(*below, current_rows);
  if (between.upper.size() != larger.upper.size()) return between;
  // The power law of the sizes is a limit: statistics of sparse counts have not reached it, so one table is not enough.
  const auto inverse = [](int64_t rows) { return 1 / static_cast<double>(rows); };
  const double share =
      (inverse(current_rows) - inverse(above->current)) / (inverse(below->current) - inverse(above->current));
  const auto mix = [&](std::vector<double>& ours, const std::vector<double>& theirs) {
    for (size_t i = 0; i < ours.size(); ++i) ours[i] = share * ours[i] + (1 - share) * theirs[i];
  };
  mix(between.lower, larger.lower);
  mix(between.upper, larger.upper);
  return between;
}

}  // namespace retort
