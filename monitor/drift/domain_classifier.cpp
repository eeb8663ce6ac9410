// Domain classifier: how well a logistic regression tells the two samples' vectors apart, by the area under its ROC
// curve on rows that it has not seen.
//
// Five folds, each scored by a fit to the other four. The folds' areas depend on each other through their fits, so
// neither a rank test nor DeLong's interval of them all is valid; the p-value comes from labels that change places
// within each fold, with a new fit for each. What makes that cheap: a fixed bound of the Hessian, X'X / 4 (Boehning and
// Lindsay 1988), is factored once a fold and serves every step of every fit.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "monitor/detector.h"
#include "monitor/permutation.h"

namespace retort {

constexpr size_t kFolds = 5;
constexpr int kSteps = 8;     // of a fit, from zero: more change the ranking little
constexpr double kRidge = 1;  // scikit-learn's C = 1
constexpr size_t kMostDimensions = 1024;

/// In place, the lower triangle of A = L L'.
static void factor(std::vector<double>& a, size_t n) {
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
}

static void solve(const std::vector<double>& l, std::span<double> x) {
  const size_t n = x.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) x[i] -= l[i * n + k] * x[k];
    x[i] /= l[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    x[i] /= l[i * n + i];
    for (size_t k = 0; k < i; ++k) x[k] -= l[i * n + k] * x[i];
  }
}

/// Mean rank (from one) of each number among all, ties sharing theirs.
static std::vector<double> ranks(std::span<const double> numbers) {
  std::vector<size_t> order(numbers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return numbers[a] < numbers[b]; });
  std::vector<double> ranks(numbers.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && numbers[order[end]] == numbers[order[i]]) ++end;
    for (size_t k = i; k < end; ++k) ranks[order[k]] = static_cast<double>(i + end + 1) / 2;
    i = end;
  }
  return ranks;
}

/// Scores of one fold's rows, those of the current sample first.
struct Scores {
  std::vector<double> current, reference;
};

static double area(const Scores& scores) {
  std::vector<double> all = scores.current;
  all.insert(all.end(), scores.reference.begin(), scores.reference.end());
  const std::vector<double> rank = ranks(all);
  const auto m = static_cast<double>(scores.current.size()), n = static_cast<double>(scores.reference.size());
  return (std::accumulate(rank.begin(), rank.begin() + std::ssize(scores.current), 0.0) - m * (m + 1) / 2) / (m * n);
}

/// Of an area, after DeLong, DeLong and Clarke-Pearson (1988), by ranks (Sun and Xu 2014).
static double area_variance(const Scores& scores) {
  std::vector<double> all = scores.current;
  all.insert(all.end(), scores.reference.begin(), scores.reference.end());
  const std::vector<double> rank = ranks(all);
  double variance = 0;
  size_t at = 0;
  for (const auto* own : {&scores.current, &scores.reference}) {
    const std::vector<double> within = ranks(*own);
    const auto size = static_cast<double>(own->size()), others = static_cast<double>(all.size()) - size;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < own->size(); ++i, ++at) {
      const double placement = (rank[at] - within[i]) / others;
      sum += placement;
      squares += placement * placement;
    }
    if (own->size() > 1) variance += (squares - sum * sum / size) / (size - 1) / size;
  }
  return variance;
}

/// Rows with a leading one, each column brought to mean 0 and deviation 1 over both samples: no label takes part.
struct Problem {
  size_t rows = 0, width = 0;
  std::vector<double> x;                   // [rows, width]
  std::vector<size_t> fold;                // of each row
  std::vector<std::vector<double>> bound;  // of each fold's training rows, factored

  const double* row(size_t i) const { return &x[i * width]; }
};

static Problem make_problem(const Vectors& reference, const Vectors& current, size_t folds, Rng& rng) {
  const size_t n = reference.rows(), dimensions = reference.dimensions;
  Problem problem{.rows = n + current.rows(), .width = dimensions + 1, .x = {}, .fold = {}, .bound = {}};
  problem.x.assign(problem.rows * problem.width, 1.0);
  for (size_t k = 0; k < dimensions; ++k) {
    const auto at = [&](size_t i) {
      return i < n ? reference.numbers[i * dimensions + k] : current.numbers[(i - n) * dimensions + k];
    };
    double mean = 0, squares = 0;
    for (size_t i = 0; i < problem.rows; ++i) mean += at(i) / static_cast<double>(problem.rows);
    for (size_t i = 0; i < problem.rows; ++i) squares += (at(i) - mean) * (at(i) - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(problem.rows));
    const bool constant = deviation <= 1e-12 * std::abs(mean);
    for (size_t i = 0; i < problem.rows; ++i)
      problem.x[i * problem.width + k + 1] = constant ? 0 : (at(i) - mean) / deviation;
  }
  for (size_t size : {n, current.rows()}) {
    std::vector<size_t> fold(size);
    for (size_t i = 0; i < size; ++i) fold[i] = i % folds;
    rng.shuffle(std::span(fold));
    problem.fold.insert(problem.fold.end(), fold.begin(), fold.end());
  }
  const size_t width = problem.width;
  std::vector<std::vector<double>> gram(folds, std::vector<double>(width * width));
  for (size_t i = 0; i < problem.rows; ++i) {
    const double* row = problem.row(i);
    for (size_t a = 0; a < width; ++a)
      for (size_t b = 0; b <= a; ++b) gram[problem.fold[i]][a * width + b] += row[a] * row[b] / 4;
  }
  for (size_t f = 0; f < folds; ++f) {
    std::vector<double> bound(width * width);
    for (size_t g = 0; g < folds; ++g)
      for (size_t i = 0; g != f && i < bound.size(); ++i) bound[i] += gram[g][i];
    for (size_t a = 1; a < width; ++a) bound[a * width + a] += kRidge;  // not of the intercept
    factor(bound, width);
    problem.bound.push_back(std::move(bound));
  }
  return problem;
}

static double dot(const double* a, std::span<const double> b) { return std::inner_product(b.begin(), b.end(), a, 0.0); }

/// Scores of fold `f` by a fit to the others; labels: 1 current, 0 reference.
static Scores fit_and_score(const Problem& problem, std::span<const uint8_t> labels, size_t f) {
  std::vector<double> weights(problem.width), step(problem.width);
  for (int s = 0; s < kSteps; ++s) {
    for (size_t a = 0; a < problem.width; ++a) step[a] = a == 0 ? 0 : -kRidge * weights[a];
    for (size_t i = 0; i < problem.rows; ++i) {
      if (problem.fold[i] == f) continue;
      const double* row = problem.row(i);
      const double residual = labels[i] - 1 / (1 + std::exp(-dot(row, weights)));
      for (size_t a = 0; a < problem.width; ++a) step[a] += residual * row[a];
    }
    solve(problem.bound[f], step);
    for (size_t a = 0; a < problem.width; ++a) weights[a] += step[a];
  }
  Scores scores;
  for (size_t i = 0; i < problem.rows; ++i) {
    if (problem.fold[i] != f) continue;
    (labels[i] == 1 ? scores.current : scores.reference).push_back(dot(problem.row(i), weights));
  }
  return scores;
}

/// The folds' areas, weighted by their pairs of rows, and the error of that mean were the folds independent.
struct Area {
  double value = 0, standard_error = 0;
};

static Area cross_fitted_area(const Problem& problem, std::span<const uint8_t> labels, bool with_error) {
  double sum = 0, pairs = 0, variance = 0;
  for (size_t f = 0; f < problem.bound.size(); ++f) {
    const Scores scores = fit_and_score(problem, labels, f);
    const double weight = static_cast<double>(scores.current.size()) * static_cast<double>(scores.reference.size());
    sum += weight * area(scores);
    if (with_error) variance += weight * weight * area_variance(scores);
    pairs += weight;
  }
  return {sum / pairs, std::sqrt(variance) / pairs};
}

static Detection of_vectors(const Vectors& reference, const Vectors& current, const DetectorOptions& options) {
  const size_t n = reference.rows(), m = current.rows(), folds = std::min({kFolds, n, m});
  if (folds < 2) {
    fail(Exit::bad_input, "detector domain_classifier: {} and {} rows; it needs two a sample to hold some out", n, m);
  }
  if (reference.dimensions > kMostDimensions) {
    fail(Exit::bad_input, "detector domain_classifier: vectors of {} numbers; the most is {}: project them first",
         reference.dimensions, kMostDimensions);
  }
  Rng rng(static_cast<uint64_t>(options.seed));
  const Problem problem = make_problem(reference, current, folds, rng);
  std::vector<uint8_t> labels(n + m, 0);
  std::fill(labels.begin() + static_cast<std::ptrdiff_t>(n), labels.end(), uint8_t{1});
  const Area observed = cross_fitted_area(problem, labels, true);
  Detection detection;
  detection.statistic = detection.effect = observed.value;
  detection.details["auc_low"] = std::max(0.0, observed.value - 1.959964 * observed.standard_error);
  detection.details["auc_high"] = std::min(1.0, observed.value + 1.959964 * observed.standard_error);
  if (!options.p_value) return detection;
  std::vector<std::vector<size_t>> members(folds);
  for (size_t i = 0; i < problem.rows; ++i) members[problem.fold[i]].push_back(i);
  detection.p_value = resampled_p_value(observed.value, options, [&](int64_t) {
    for (const auto& rows : members)
      for (size_t i = rows.size(); i > 1; --i) std::swap(labels[rows[i - 1]], labels[rows[rng.below(i)]]);
    return cross_fitted_area(problem, labels, false).value;
  });
  return detection;
}

extern const DetectorKind detector_domain_classifier;
const DetectorKind detector_domain_classifier{
    .summary = "area under the ROC curve of a cross-fitted logistic regression that tells the samples' vectors apart",
    .effect = "that area, 0.5 where nothing differs; two normals that lie d deviations apart give about 0.5 + 0.28 d",
    .limit = 0.556,
    .order = 0,
    .of_vectors = of_vectors};

}  // namespace retort
