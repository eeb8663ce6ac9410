// How far the probabilities that the model gives its choices can be believed. A row's confidence is the largest of the
// softmax over the choices' total log-probabilities.
#include <algorithm>
#include <cmath>

#include "monitor/evaluate.h"

namespace retort {
namespace {

constexpr size_t kBins = 15;
// Of a row's figures: Brier score, index of the expected choice, then each choice's log-probability.
constexpr size_t kBrier = 0, kExpected = 1, kChoices = 2;

/// Probabilities of the choices at an inverse temperature.
std::vector<double> softmax(std::span<const double> logs, double inverse) {
  const double most = *std::max_element(logs.begin(), logs.end());
  std::vector<double> p;
  double sum = 0;
  for (double log : logs) p.push_back(std::exp(inverse * (log - most)));
  for (double value : p) sum += value;
  for (double& value : p) value /= sum;
  return p;
}

/// Confidence in the most likely choice and whether it is right.
RowScore confidence(std::span<const double> probabilities, size_t expected) {
  const auto best = std::max_element(probabilities.begin(), probabilities.end());
  return {*best, static_cast<size_t>(best - probabilities.begin()) == expected ? 1.0 : 0.0};
}

RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  const size_t expected = expected_choice(row, "calibration");
  const std::vector<double> p = softmax(reply.choices, 1);
  RowScore result = confidence(p, expected);
  double brier = 0;
  for (size_t c = 0; c < p.size(); ++c) brier += std::pow(p[c] - (c == expected ? 1 : 0), 2);
  result.figures = {brier, static_cast<double>(expected)};
  result.figures.insert(result.figures.end(), reply.choices.begin(), reply.choices.end());
  return result;
}

/// Rows by confidence in (0, 1/15], (1/15, 2/15] …
struct Bin {
  double rows = 0, confidence = 0, right = 0;  ///< sums
};
std::vector<Bin> bins_of(std::span<const RowScore> scores) {
  std::vector<Bin> bins(kBins);
  for (const RowScore& score : scores) {
    const double at = std::ceil(score.numerator * kBins) - 1;
    Bin& bin = bins[static_cast<size_t>(std::clamp(at, 0.0, kBins - 1.0))];
    ++bin.rows;
    bin.confidence += score.numerator;
    bin.right += score.denominator;
  }
  return bins;
}

/// Expected calibration error: the mean distance of confidence and accuracy in a bin, weighted by its rows.
double calibration_error(std::span<const RowScore> scores) {
  double error = 0;
  for (const Bin& bin : bins_of(scores)) error += std::abs(bin.confidence - bin.right);
  return error / static_cast<double>(scores.size());
}

/// With the choices' log-probabilities multiplied by `inverse`: confidence and whether it is right, and the negative
/// log-likelihood.
struct Scaled {
  std::vector<RowScore> scores, losses;
};
Scaled scaled(std::span<const RowScore> scores, double inverse) {
  Scaled result;
  for (const RowScore& score : scores) {
    const auto expected = static_cast<size_t>(score.figures[kExpected]);
    const std::vector<double> p = softmax(std::span(score.figures).subspan(kChoices), inverse);
    result.scores.push_back(confidence(p, expected));
    result.losses.push_back({-std::log(std::max(p[expected], 1e-300))});
  }
  return result;
}

/// The inverse temperature of least negative log-likelihood, within [1/100, 100]. The loss is convex in it: its
/// derivative is what is expected of the chosen log-probability less what is seen.
double fitted_inverse(std::span<const RowScore> scores) {
  double low = 0.01, high = 100;
  for (int step = 0; step < 100; ++step) {
    const double middle = std::sqrt(low * high);
    double slope = 0;
    for (const RowScore& score : scores) {
      const auto logs = std::span(score.figures).subspan(kChoices);
      const std::vector<double> p = softmax(logs, middle);
      for (size_t c = 0; c < p.size(); ++c) slope += p[c] * logs[c];
      slope -= logs[static_cast<size_t>(score.figures[kExpected])];
    }
    (slope > 0 ? high : low) = middle;
  }
  return std::sqrt(low * high);
}

/// Of the temperature 1 / inverse, as of any root of a sum over rows: the scatter of the rows' parts of the slope by
/// its derivative, which is the variance of the choices' log-probabilities.
double temperature_error(std::span<const RowScore> scores, double inverse) {
  double squares = 0, derivative = 0;
  for (const RowScore& score : scores) {
    const auto logs = std::span(score.figures).subspan(kChoices);
    const std::vector<double> p = softmax(logs, inverse);
    double mean = 0, variance = 0;
    for (size_t c = 0; c < p.size(); ++c) mean += p[c] * logs[c];
    for (size_t c = 0; c < p.size(); ++c) variance += p[c] * std::pow(logs[c] - mean, 2);
    squares += std::pow(mean - logs[static_cast<size_t>(score.figures[kExpected])], 2);
    derivative += variance;
  }
  const auto n = static_cast<double>(scores.size());
  if (n < 2 || derivative == 0) return 0;
  return std::sqrt(squares * n / (n - 1)) / derivative / (inverse * inverse);
}

void add_calibration_error(const std::string& name, std::span<const RowScore> scores, Json& details) {
  Evaluation error;
  estimate_by_bootstrap(scores, calibration_error, error);
  details[name] = error.value;
  details[name + "_stderr"] = error.standard_error;
}

/// What a temperature that was fitted to one half does to the other.
Json temperature_of(std::span<const RowScore> fitted, std::span<const RowScore> measured) {
  const double inverse = fitted_inverse(fitted);
  const Scaled before = scaled(measured, 1), after = scaled(measured, inverse);
  Json result{{"fitted", 1 / inverse},
              {"fitted_stderr", temperature_error(fitted, inverse)},
              {"rows_fitted", fitted.size()},
              {"rows_measured", measured.size()}};
  add_calibration_error("error_before", before.scores, result);
  add_calibration_error("error_after", after.scores, result);
  add_ratio("log_loss_before", before.losses, result);
  add_ratio("log_loss_after", after.losses, result);
  return result;
}

Json details(const EvaluatorOptions&, std::span<const EvaluationRow>, std::span<const RowScore> scores) {
  std::vector<RowScore> confident, right, halves[2];
  for (size_t i = 0; i < scores.size(); ++i) {
    confident.push_back({scores[i].numerator});
    right.push_back({scores[i].denominator});
    halves[i % 2].push_back(scores[i]);  // neighbours part, as rows are often in the order of their answers
  }
  Json result;
  add_ratio("accuracy", right, result);
  add_ratio("confidence", confident, result);
  add_ratio("brier", scores, kBrier, result);
  add_ratio("log_loss", scaled(scores, 1).losses, result);
  if (!halves[1].empty()) result["temperature"] = temperature_of(halves[0], halves[1]);
  Json reliability = Json::array();
  for (const Bin& bin : bins_of(scores)) {
    if (bin.rows == 0) continue;
    reliability.push_back({{"confidence", bin.confidence / bin.rows},
                           {"accuracy", bin.right / bin.rows},
                           {"rows", static_cast<int64_t>(bin.rows)}});
  }
  result["reliability"] = std::move(reliability);
  return result;
}

}  // namespace

extern const EvaluatorKind evaluator_calibration;
const EvaluatorKind evaluator_calibration{
    .summary =
        "expected calibration error in 15 bins of the probabilities of the choices; also Brier score, log loss, the "
        "temperature that one half of the rows asks for and what it does to the other",
    .unit = "share",
    .better = -1,
    .needs = [](const EvaluatorOptions&) { return Needs{.every_choice = true}; },
    .score = score,
    .statistic = calibration_error,
    .details = details};

}  // namespace retort
