#include "monitor/router.h"

#include <algorithm>
#include <boost/math/distributions/beta.hpp>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/hash.h"

namespace retort {
namespace {

double no_worse(const RouteRow& row) { return row.small >= row.large; }

/// Upper bound of confidence 1 - delta of a share (Clopper and Pearson 1934).
double upper_bound(int64_t losses, int64_t rows, double delta) {
  if (losses >= rows) return 1;
  const boost::math::beta_distribution<> beta(static_cast<double>(losses + 1), static_cast<double>(rows - losses));
  return boost::math::quantile(beta, 1 - delta);
}

double lower_bound(int64_t losses, int64_t rows, double delta) { return 1 - upper_bound(rows - losses, rows, delta); }

std::vector<double> features_of(const RouteRow& row, const std::vector<RouterFeature>& features) {
  std::vector<double> x;
  for (const RouterFeature& feature : features) {
    const auto at = row.features.find(feature.name);
    if (at == row.features.end()) fail(Exit::bad_input, "{}: the row has no feature {}", row.place, feature.name);
    x.push_back(at->second);
  }
  return x;
}

struct Split {
  std::vector<const RouteRow*> fit, correct, choose;
};

Split split_of(const RouteData& data, uint64_t seed) {
  Split split;
  for (const RouteRow& row : data.rows) {
    const uint64_t part = xxh3(row.prompt, seed) % 5;
    (part < 2 ? split.fit : part < 3 ? split.correct : split.choose).push_back(&row);
  }
  return split;
}

}  // namespace

double Router::score(const RouteRow& row) const {
  const std::vector<double> x = features_of(row, features);
  double z = intercept;
  for (size_t i = 0; i < x.size(); ++i) z += features[i].coefficient * (x[i] - features[i].mean) / features[i].scale;
  return 1 / (1 + std::exp(-z));
}

Router calibrate_router(const RouteData& data, const RouteOptions& options) {
  if (!(options.epsilon > 0 && options.epsilon < 1 && options.delta > 0 && options.delta < 1))
    fail(Exit::usage, "epsilon is {} and delta {}; both must be in (0, 1)", options.epsilon, options.delta);
  if (!(options.ridge > 0)) fail(Exit::usage, "ridge is {}; it must be above 0", options.ridge);
  if (data.rows.size() < 20)
    fail(Exit::bad_input, "{} rows are too few to calibrate a router; give 20 or more", data.rows.size());
  const Split split = split_of(data, options.seed);
  if (split.fit.empty() || split.correct.empty() || split.choose.empty())
    fail(Exit::bad_input, "too few different prompts: fitting, correcting and choosing each need some of their own");
  Router router;
  router.source = data.source;
  router.epsilon = options.epsilon;
  router.delta = options.delta;
  for (const auto& [name, unused] : data.rows.front().features) router.features.push_back({.name = name});
  if (router.features.empty()) fail(Exit::bad_input, "{}: the row has no features", data.rows.front().place);

  std::vector<double> rows, labels;
  for (const RouteRow* row : split.fit) {
    const std::vector<double> x = features_of(*row, router.features);
    rows.insert(rows.end(), x.begin(), x.end());
    labels.push_back(no_worse(*row));
  }
  const Logistic logistic = fit_logistic(rows, labels, options.ridge);
  router.intercept = logistic.intercept;
  for (size_t i = 0; i < router.features.size(); ++i) {
    router.features[i].mean = logistic.mean[i];
    router.features[i].scale = logistic.scale[i];
    router.features[i].coefficient = logistic.coefficients[i];
  }
  std::vector<double> scores, outcomes, candidates;
  for (const RouteRow* row : split.correct) {
    scores.push_back(router.score(*row));
    outcomes.push_back(no_worse(*row));
  }
  router.isotonic = fit_isotonic(scores, outcomes);
  router.fit_rows = static_cast<int64_t>(split.fit.size() + split.correct.size());

  // Candidates must not depend on the rows that choose among them.
  candidates = scores;
  for (const RouteRow* row : split.fit) candidates.push_back(router.score(*row));
  std::sort(candidates.rbegin(), candidates.rend());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  std::vector<std::pair<double, bool>> chosen;  // score, loss
  for (const RouteRow* row : split.choose) chosen.emplace_back(router.score(*row), row->small < row->large);
  std::sort(chosen.rbegin(), chosen.rend());
  router.rows = static_cast<int64_t>(chosen.size());
  router.bound = upper_bound(0, router.rows, options.delta);
  int64_t sent = 0, losses = 0;
  for (double candidate : candidates) {
    for (; sent < router.rows && chosen[static_cast<size_t>(sent)].first >= candidate; ++sent)
      losses += chosen[static_cast<size_t>(sent)].second;
    const double bound = upper_bound(losses, router.rows, options.delta);
    if (bound > options.epsilon) break;
    router.threshold = candidate;
    router.sent = sent;
    router.losses = losses;
    router.bound = bound;
  }
  return router;
}

RouteCurve route_curve(std::span<const RouteRow> rows, std::span<const double> need) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return need[a] > need[b]; });
  const double n = static_cast<double>(rows.size());
  double sum = 0;
  for (const RouteRow& row : rows) sum += row.small;
  const double weak = sum / n;
  RouteCurve curve{.points = {{0, weak}}, .apgr = {}, .cpt = {}};
  for (size_t i = 0; i < order.size();) {
    const double level = need[order[i]];
    for (; i < order.size() && need[order[i]] == level; ++i) sum += rows[order[i]].large - rows[order[i]].small;
    curve.points.emplace_back(static_cast<double>(i) / n, sum / n);
  }
  const double strong = curve.points.back().second;
  for (double x : {0.2, 0.5, 0.8}) curve.cpt[fmt::format("{:.0f}", 100 * x)] = std::nullopt;
  if (strong <= weak + 1e-12) return curve;
  double area = 0;
  for (size_t i = 1; i < curve.points.size(); ++i) {
    const auto& [c0, r0] = curve.points[i - 1];
    const auto& [c1, r1] = curve.points[i];
    const double g0 = (r0 - weak) / (strong - weak), g1 = (r1 - weak) / (strong - weak);
    area += (c1 - c0) * (g0 + g1) / 2;
    for (double x : {0.2, 0.5, 0.8}) {
      std::optional<double>& least = curve.cpt[fmt::format("{:.0f}", 100 * x)];
      if (!least && g1 >= x) least = c0 + (c1 - c0) * (x - g0) / (g1 - g0);
    }
  }
  curve.apgr = area;
  return curve;
}

namespace {

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json json_of(const RouteCurve& curve) {
  Json points = Json::array(), cpt = Json::object();
  const size_t stride = std::max<size_t>(1, curve.points.size() / 200);
  for (size_t i = 0; i < curve.points.size(); ++i)
    if (i % stride == 0 || i + 1 == curve.points.size())
      points.push_back({curve.points[i].first, curve.points[i].second});
  for (const auto& [share, least] : curve.cpt) cpt[share] = json_of(least);
  return {{"apgr", json_of(curve.apgr)}, {"cpt", cpt}, {"points", points}};
}

/// How far probabilities are from outcomes.
Json calibration_of(const std::vector<double>& probabilities, const std::vector<double>& outcomes) {
  constexpr size_t kBins = 15;
  std::vector<double> difference(kBins, 0);
  double nll = 0, brier = 0, ece = 0;
  const double n = static_cast<double>(outcomes.size());
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const double p = std::clamp(probabilities[i], 1e-6, 1 - 1e-6);
    nll -= (outcomes[i] * std::log(p) + (1 - outcomes[i]) * std::log(1 - p)) / n;
    brier += std::pow(probabilities[i] - outcomes[i], 2) / n;
    const double bin = std::clamp(std::ceil(probabilities[i] * kBins) - 1, 0.0, kBins - 1.0);  // (low, high]
    difference[static_cast<size_t>(bin)] += probabilities[i] - outcomes[i];
  }
  for (double sum : difference) ece += std::abs(sum) / n;
  return {{"nll", nll}, {"brier", brier}, {"ece", ece}};
}

}  // namespace

Json evaluate_router(const Router& router, const RouteData& data) {
  if (data.rows.empty()) fail(Exit::bad_input, "there are no rows to evaluate the router on");
  const double n = static_cast<double>(data.rows.size());
  std::vector<double> need, random(data.rows.size(), 0), gain, probabilities, outcomes;
  double quality = 0, small = 0, large = 0, cost = 0, large_cost = 0;
  int64_t sent = 0, losses = 0;
  bool costs = true;
  for (const RouteRow& row : data.rows) {
    const double score = router.score(row);
    const bool to_small = router.threshold && score >= *router.threshold;
    need.push_back(1 - score);
    gain.push_back(row.large - row.small);
    probabilities.push_back(router.isotonic(score));
    outcomes.push_back(no_worse(row));
    sent += to_small;
    losses += to_small && row.small < row.large;
    quality += (to_small ? row.small : row.large) / n;
    small += row.small / n;
    large += row.large / n;
    costs = costs && row.small_cost && row.large_cost;
    // The score needs the small model's own run, so that runs in any case.
    if (costs) cost += (*row.small_cost + (to_small ? 0 : *row.large_cost)) / n, large_cost += *row.large_cost / n;
  }
  const auto rows = static_cast<int64_t>(data.rows.size());
  Json chosen{{"to_small", static_cast<double>(sent) / n},
              {"quality", quality},
              {"loss", static_cast<double>(losses) / n},
              {"loss_at_least", lower_bound(losses, rows, router.delta)},
              {"loss_at_most", upper_bound(losses, rows, router.delta)},
              {"pgr", large > small ? Json((quality - small) / (large - small)) : Json(nullptr)}};
  if (costs) chosen["cost"] = cost, chosen["large_cost"] = large_cost;
  return {{"rows", rows},
          {"epsilon", router.epsilon},
          {"delta", router.delta},
          {"threshold", json_of(router.threshold)},
          {"small_alone", small},
          {"large_alone", large},
          {"chosen", chosen},
          {"calibration", calibration_of(probabilities, outcomes)},
          {"curves",
           {{"router", json_of(route_curve(data.rows, need))},
            {"random", json_of(route_curve(data.rows, random))},
            {"oracle", json_of(route_curve(data.rows, gain))}}}};
}

}  // namespace retort
