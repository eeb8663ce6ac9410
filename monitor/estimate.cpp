// Values with their standard errors, over rows.
#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"
#include "monitor/evaluate.h"

namespace retort {

static constexpr size_t kReplicates = 1000;

/// The sample variance of a sum whose parts these are, when each part stands for one row.
static double standard_error_of_sum(const std::vector<double>& parts) {
  const auto n = static_cast<double>(parts.size());
  double squares = 0;
  for (double part : parts) squares += part * part;
  return n > 1 ? std::sqrt(squares * n / (n - 1)) : 0;
}

static double standard_deviation(const std::vector<double>& values) {
  double mean = 0, squares = 0;
  for (double value : values) mean += value / static_cast<double>(values.size());
  for (double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

void estimate_ratio(std::span<const RowScore> scores, double (*link)(double), double (*slope)(double),
                    Evaluation& evaluation) {
  double numerator = 0, denominator = 0;
  for (const RowScore& score : scores) {
    numerator += score.numerator;
    denominator += score.denominator;
  }
  const double ratio = denominator == 0 ? 0 : numerator / denominator;
  evaluation.value = link(ratio);
  evaluation.n = static_cast<int64_t>(scores.size());
  evaluation.influence.assign(scores.size(), 0);
  // The value's linear part in each row: its sum is zero, its sum of squares the variance.
  for (size_t i = 0; i < scores.size() && denominator != 0; ++i)
    evaluation.influence[i] = slope(ratio) * (scores[i].numerator - ratio * scores[i].denominator) / denominator;
  evaluation.standard_error = standard_error_of_sum(evaluation.influence);
}

void estimate_ratio(std::span<const RowScore> scores, Evaluation& evaluation) {
  estimate_ratio(
      scores, [](double ratio) { return ratio; }, [](double) { return 1.0; }, evaluation);
}

void add_ratio(const std::string& name, std::span<const RowScore> scores, Json& details) {
  Evaluation ratio;
  estimate_ratio(scores, ratio);
  details[name] = ratio.value;
  details[name + "_stderr"] = ratio.standard_error;
}

void add_ratio(const std::string& name, std::span<const RowScore> scores, size_t figure, Json& details) {
  std::vector<RowScore> of_figure;
  for (const RowScore& score : scores) of_figure.push_back({score.figures[figure]});
  add_ratio(name, of_figure, details);
}

void add_ratio(const std::string& name, std::span<const RowScore> scores, size_t figure, size_t by, Json& details) {
  std::vector<RowScore> of_figures;
  for (const RowScore& score : scores) of_figures.push_back({score.figures[figure], score.figures[by]});
  add_ratio(name, of_figures, details);
}

void estimate_by_bootstrap(std::span<const RowScore> scores, double (*statistic)(std::span<const RowScore>),
                           Evaluation& evaluation) {
  evaluation.value = statistic(scores);
  evaluation.n = static_cast<int64_t>(scores.size());
  // A fixed seed: results on the same rows are resampled alike, so that their difference is paired.
  std::mt19937_64 random(0);
  std::vector<RowScore> resampled(scores.size());
  evaluation.replicates.resize(kReplicates);
  for (double& replicate : evaluation.replicates) {
    for (RowScore& score : resampled) score = scores[random() % scores.size()];
    replicate = statistic(resampled);
  }
  evaluation.standard_error = scores.size() > 1 ? standard_deviation(evaluation.replicates) : 0;
}

Difference difference(const Evaluation& a, const Evaluation& b) {
  if (a.influence.size() != b.influence.size() || a.replicates.size() != b.replicates.size() || a.n != b.n) {
    fail(Exit::internal, "{} of {} and {}: a paired difference needs the same rows, found {} and {}", a.kind, a.on,
         b.on, a.n, b.n);
  }
  const double value = a.value - b.value;
  if (a.influence.empty() && a.replicates.empty()) return {value, std::hypot(a.standard_error, b.standard_error)};
  const bool resampled = a.influence.empty();
  const std::vector<double>&of_a = resampled ? a.replicates : a.influence,
        &of_b = resampled ? b.replicates : b.influence;
  std::vector<double> apart(of_a.size());
  for (size_t i = 0; i < apart.size(); ++i) apart[i] = of_a[i] - of_b[i];
  return {value, resampled ? standard_deviation(apart) : standard_error_of_sum(apart)};
}

}  // namespace retort
