#include "registry/paired.h"

#include <algorithm>
#include <boost/math/distributions/beta.hpp>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/tools/minima.hpp>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace retort {
namespace {

double normal_cdf(double z) { return boost::math::cdf(boost::math::normal(), z); }
double normal_quantile(double p) { return boost::math::quantile(boost::math::normal(), p); }

/// The restricted maximum likelihood estimate of the probability of a loss, of shares of gains and losses.
double restricted_loss(double gains, double losses, double delta) {
  const double b = -gains - losses + (2 - gains + losses) * delta;
  const double c = -losses * delta * (1 - delta);
  return (std::sqrt(std::max(0.0, b * b - 8 * c)) - b) / 4;
}

double null_variance(double gains, double losses, double delta) {
  return 2 * restricted_loss(gains, losses, delta) + delta * (1 - delta);
}

/// For every number of losses the least number of gains whose score reaches that of `pairs`; rows - losses + 1 where
/// none does.
std::vector<int64_t> rejection_region(const Discordant& pairs, double delta) {
  const double reached = paired_score(pairs, delta) - 1e-9;
  std::vector<int64_t> least(static_cast<size_t>(pairs.rows) + 1);
  int64_t gains = 0;
  for (int64_t losses = 0; losses <= pairs.rows; ++losses) {
    while (gains <= pairs.rows - losses && paired_score({gains, losses, pairs.rows}, delta) < reached) ++gains;
    gains = std::min(gains, pairs.rows - losses + 1);
    least[static_cast<size_t>(losses)] = gains;
  }
  return least;
}

/// The region's probability when a pair is a loss with probability `loss` and a gain with loss + delta.
double probability(const std::vector<int64_t>& least, double loss, double delta) {
  const auto rows = static_cast<int64_t>(least.size()) - 1;
  const double n = static_cast<double>(rows);
  const double gain = std::min(std::max(loss + delta, 0.0), 1 - loss);
  const double reach = 6.5 * std::sqrt(n * loss * (1 - loss)) + 10;  // beyond, less than 1e-9
  const auto first = std::max<int64_t>(0, static_cast<int64_t>(std::floor(n * loss - reach)));
  const auto last = std::min(rows, static_cast<int64_t>(std::ceil(n * loss + reach)));
  const boost::math::binomial losses(n, loss);
  const double rate = loss < 1 ? std::min(1.0, gain / (1 - loss)) : 0;
  double sum = 0;
  for (int64_t i = first; i <= last; ++i) {
    const int64_t needed = least[static_cast<size_t>(i)];
    if (needed > rows - i) continue;
    const double mass = boost::math::pdf(losses, static_cast<double>(i));
    if (mass < 1e-12) continue;
    const double tail =
        needed <= 0 ? 1
                    : boost::math::cdf(boost::math::complement(
                          boost::math::binomial(static_cast<double>(rows - i), rate), static_cast<double>(needed - 1)));
    sum += mass * tail;
  }
  return std::min(1.0, sum);
}

}  // namespace

Discordant discordant_of(std::span<const double> champion, std::span<const double> challenger) {
  Discordant pairs{.rows = static_cast<int64_t>(champion.size())};
  for (size_t i = 0; i < champion.size(); ++i) {
    pairs.gains += challenger[i] > champion[i];
    pairs.losses += challenger[i] < champion[i];
  }
  return pairs;
}

double mcnemar_p_value(const Discordant& pairs) {
  const int64_t discordant = pairs.gains + pairs.losses;
  if (discordant == 0) return 1;
  const boost::math::binomial fair(static_cast<double>(discordant), 0.5);
  return std::min(1.0, 2 * boost::math::cdf(fair, static_cast<double>(std::min(pairs.gains, pairs.losses))));
}

double paired_score(const Discordant& pairs, double delta) {
  const double n = static_cast<double>(pairs.rows);
  const double distance = pairs.difference() - delta;
  const double variance =
      null_variance(static_cast<double>(pairs.gains) / n, static_cast<double>(pairs.losses) / n, delta);
  return variance > 0 ? distance * std::sqrt(n / variance) : 0;
}

double exact_above_p_value(const Discordant& pairs, double delta) {
  if (pairs.rows < 1 || delta <= -1 || delta >= 1) return 1;
  const std::vector<int64_t> least = rejection_region(pairs, delta);
  const double low = std::max(0.0, -delta), high = (1 - delta) / 2;
  constexpr int kSteps = 60;
  // Quadratic steps: probabilities change fastest where pairs seldom differ.
  auto at = [&](double step) { return low + (high - low) * step * step / (kSteps * kSteps); };
  double best = 0, best_step = 0;
  for (int step = 0; step <= kSteps; ++step) {
    const double p = probability(least, at(step), delta);
    if (p > best) best = p, best_step = step;
  }
  const auto [step, negative] =
      boost::math::tools::brent_find_minima([&](double s) { return -probability(least, at(s), delta); },
                                            std::max(0.0, best_step - 1), std::min<double>(kSteps, best_step + 1), 20);
  (void)step;
  return std::min(1.0, std::max(best, -negative));
}

double exact_below_p_value(const Discordant& pairs, double delta) {
  return exact_above_p_value({pairs.losses, pairs.gains, pairs.rows}, -delta);
}

/// The largest delta that is too small with p <= alpha.
static double lower_bound(const Discordant& pairs, double alpha) {
  double low = -1, high = pairs.difference();
  while (high - low > 1e-6) {
    const double middle = (low + high) / 2;
    (exact_above_p_value(pairs, middle) <= alpha ? low : high) = middle;
  }
  return low;
}

ConfidenceBounds exact_difference_bounds(const Discordant& pairs, double alpha) {
  return {lower_bound(pairs, alpha), -lower_bound({pairs.losses, pairs.gains, pairs.rows}, alpha)};
}

ConfidenceBounds clopper_pearson(int64_t successes, int64_t rows, double alpha) {
  if (rows < 1 || successes < 0 || successes > rows)
    fail(Exit::bad_input, "{} of {} rows: no share has a bound", successes, rows);
  const double k = static_cast<double>(successes), n = static_cast<double>(rows);
  return {successes == 0 ? 0 : boost::math::quantile(boost::math::beta_distribution<>(k, n - k + 1), alpha),
          successes == rows ? 1 : boost::math::quantile(boost::math::beta_distribution<>(k + 1, n - k), 1 - alpha)};
}

PairedBootstrap::PairedBootstrap(std::span<const double> differences, int64_t resamples, uint64_t seed) {
  const size_t rows = differences.size();
  const double n = static_cast<double>(rows);
  mean_ = std::accumulate(differences.begin(), differences.end(), 0.0) / n;
  double squares = 0, cubes = 0;
  for (double difference : differences) {
    const double distance = difference - mean_;
    squares += distance * distance;
    cubes += distance * distance * distance;
  }
  deviation_ = rows > 1 ? std::sqrt(squares / (n - 1)) : 0;
  acceleration_ = squares > 0 ? cubes / (6 * std::pow(squares, 1.5)) : 0;
  Rng rng(seed);
  means_.resize(static_cast<size_t>(resamples));
  for (double& mean : means_) {
    double sum = 0;
    for (size_t i = 0; i < rows; ++i) sum += differences[rng.below(rows)];
    mean = sum / n;
  }
  std::sort(means_.begin(), means_.end());
  // Ties count half, as scipy.stats.bootstrap counts them.
  const auto below = std::lower_bound(means_.begin(), means_.end(), mean_) - means_.begin();
  const auto up_to = std::upper_bound(means_.begin(), means_.end(), mean_) - means_.begin();
  const double share = static_cast<double>(below + up_to) / (2 * static_cast<double>(resamples));
  bias_ = normal_quantile(std::clamp(share, 1e-9, 1 - 1e-9));
}

double PairedBootstrap::above_p_value(double value) const {
  if (deviation_ == 0) return mean_ > value ? 0 : 1;
  const auto up_to = std::upper_bound(means_.begin(), means_.end(), value) - means_.begin();
  const double share = (static_cast<double>(up_to) + 1) / (static_cast<double>(means_.size()) + 2);
  const double z = normal_quantile(share) - bias_;
  return normal_cdf(z / (1 + acceleration_ * z) - bias_);
}

double PairedBootstrap::below_p_value(double value) const {
  if (deviation_ == 0) return mean_ < value ? 0 : 1;
  const auto below = std::lower_bound(means_.begin(), means_.end(), value) - means_.begin();
  const double share = (static_cast<double>(below) + 1) / (static_cast<double>(means_.size()) + 2);
  const double z = normal_quantile(share) - bias_;
  return normal_cdf(bias_ - z / (1 + acceleration_ * z));
}

ConfidenceBounds PairedBootstrap::bounds(double alpha) const {
  auto at = [&](double level) {
    const double z = bias_ + normal_quantile(level);
    const double rank = normal_cdf(bias_ + z / (1 - acceleration_ * z)) * static_cast<double>(means_.size() - 1);
    const auto below = static_cast<size_t>(rank);
    const size_t above = std::min(below + 1, means_.size() - 1);
    return means_[below] + (rank - static_cast<double>(below)) * (means_[above] - means_[below]);
  };
  return {at(alpha), at(1 - alpha)};
}

BoundedMean::BoundedMean(std::span<const double> values, double least, double greatest, int64_t draws, uint64_t seed) {
  if (values.empty()) fail(Exit::bad_input, "no rows: their mean has no bounds");
  for (double value : values)
    if (!(value >= least && value <= greatest))
      fail(Exit::bad_input, "a row's value is {}, outside of {} to {}", value, least, greatest);
  Rng rng(seed);
  // Exponentials divided by their sum are uniform over all weights.
  const auto weight = [&] { return -std::log1p(-rng.uniform()); };
  for (int64_t draw = 0; draw < draws; ++draw) {
    double sum = 0, weights = 0;
    for (double value : values) {
      const double w = weight();
      sum += w * value;
      weights += w;
    }
    const double other = weight();
    low_.push_back((sum + other * least) / (weights + other));
    high_.push_back((sum + other * greatest) / (weights + other));
  }
  std::sort(low_.begin(), low_.end());
  std::sort(high_.begin(), high_.end());
}

double BoundedMean::above_p_value(double value) const {
  const auto up_to = std::upper_bound(low_.begin(), low_.end(), value) - low_.begin();
  return (static_cast<double>(up_to) + 1) / (static_cast<double>(low_.size()) + 2);
}

double BoundedMean::below_p_value(double value) const {
  const auto from = high_.end() - std::lower_bound(high_.begin(), high_.end(), value);
  return (static_cast<double>(from) + 1) / (static_cast<double>(high_.size()) + 2);
}

ConfidenceBounds BoundedMean::bounds(double alpha) const {
  const auto at = [](const std::vector<double>& sorted, double level) {
    return sorted[static_cast<size_t>(std::floor(level * static_cast<double>(sorted.size() - 1)))];
  };
  const std::vector<double> falling(high_.rbegin(), high_.rend());
  return {at(low_, alpha), at(falling, alpha)};
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, static_cast<double>(order.size() - i) * p_values[order[i]]);
    adjusted[order[i]] = std::min(1.0, largest);
  }
  return adjusted;
}

PowerTerms power_terms(double gains, double losses, double margin) {
  const double difference = gains - losses;
  return {.margin = margin,
          .difference = difference,
          .null_variance = null_variance(gains, losses, -margin),
          .variance = gains + losses - difference * difference};
}

std::optional<int64_t> rows_for_power(const PowerTerms& terms, double alpha, double power) {
  const double distance = terms.margin + terms.difference;
  if (distance <= 0) return std::nullopt;
  const double reach =
      normal_quantile(1 - alpha) * std::sqrt(terms.null_variance) + normal_quantile(power) * std::sqrt(terms.variance);
  // distance - span / rows = reach / sqrt(rows)
  const double root = (reach + std::sqrt(reach * reach + 4 * distance * terms.span)) / (2 * distance);
  // Where all rows are alike the other's weight alone counts: (1 - distance / span)^rows = alpha.
  const double rows = std::ceil(std::max(root * root, -std::log(alpha) * terms.span / distance));
  if (rows > 1e12) return std::nullopt;
  return std::max<int64_t>(2, static_cast<int64_t>(rows));
}

double power_of_rows(int64_t rows, const PowerTerms& terms, double alpha) {
  const double n = static_cast<double>(rows);
  const double distance = (terms.margin + terms.difference - terms.span / n) * std::sqrt(n);
  if (terms.variance <= 0) return distance > normal_quantile(1 - alpha) * std::sqrt(terms.null_variance) ? 1 : 0;
  return normal_cdf((distance - normal_quantile(1 - alpha) * std::sqrt(terms.null_variance)) /
                    std::sqrt(terms.variance));
}

}  // namespace retort
