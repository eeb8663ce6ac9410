#include "registry/gate.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "registry/paired.h"

namespace retort {
namespace {

bool is_share(const std::vector<double>& outcomes) {
  return std::all_of(outcomes.begin(), outcomes.end(), [](double x) { return x == 0 || x == 1; });
}

void check(const PromotionCase& given, const PromotionRule& rule) {
  if (!(rule.margin >= 0 && std::isfinite(rule.margin)))
    fail(Exit::usage, "the gate's margin is {}; it must be 0 or more", rule.margin);
  if (!(rule.alpha > 0 && rule.alpha < 0.5))
    fail(Exit::usage, "the gate's alpha is {}; it must be in (0, 0.5)", rule.alpha);
  if (!(rule.power > 0 && rule.power < 1))
    fail(Exit::usage, "the gate's power is {}; it must be in (0, 1)", rule.power);
  if (rule.resamples < 100) fail(Exit::usage, "the gate's resamples are {}; at least 100 are needed", rule.resamples);
  if (given.champion.size() != given.challenger.size())
    fail(Exit::bad_input, "the champion has outcomes of {} rows, the challenger of {}: they must be of the same rows",
         given.champion.size(), given.challenger.size());
  if (given.without_champion && !given.champion.empty())
    fail(Exit::internal, "the gate was given outcomes of a champion that there is not");
  for (size_t i = 0; given.range && i < given.champion.size(); ++i)
    if (std::abs(given.challenger[i] - given.champion[i]) > *given.range)
      fail(Exit::bad_input, "row {}: the outcomes differ by {}, at most {} is possible", i,
           given.challenger[i] - given.champion[i], *given.range);
  for (const auto* outcomes : {&given.champion, &given.challenger}) {
    for (size_t i = 0; i < outcomes->size(); ++i)
      if (!std::isfinite((*outcomes)[i])) fail(Exit::bad_input, "row {}: the outcome is {}", i, (*outcomes)[i]);
  }
  for (const PromotionSlice& slice : given.slices) {
    for (size_t row : slice.rows)
      if (row >= given.champion.size())
        fail(Exit::bad_input, "slice {}: row {} does not exist, there are {}", slice.name, row, given.champion.size());
  }
}

/// One comparison: of all rows or of a slice.
struct Comparison {
  std::string name;
  Json json;
  double not_worse = 1, worse = 1;  // p-values
  PowerTerms power;
};

/// Of scores: p-values and bounds that hold by the bootstrap and by Gaffke's bound.
ConfidenceBounds compare_scores(const std::vector<double>& differences, std::optional<double> range,
                                const PromotionRule& rule, Comparison& result) {
  const PairedBootstrap bootstrap(differences, rule.resamples, rule.seed);
  const auto [worst, best] = std::minmax_element(differences.begin(), differences.end());
  const double least = range ? -*range : *worst;
  const BoundedMean bounded(differences, least, range ? *range : *best, rule.resamples, rule.seed + 1);
  if (static_cast<int64_t>(differences.size()) >= rule.min_score_rows) {
    result.not_worse = std::max(bootstrap.above_p_value(-rule.margin), bounded.above_p_value(-rule.margin));
    result.worse = std::max(bootstrap.below_p_value(-rule.margin), bounded.below_p_value(-rule.margin));
  }
  const double variance = bootstrap.deviation() * bootstrap.deviation();
  result.power = {rule.margin, std::min(0.0, bootstrap.mean()), variance, variance, bootstrap.mean() - least};
  result.json["difference"] = bootstrap.mean();
  const ConfidenceBounds a = bootstrap.bounds(rule.alpha), b = bounded.bounds(rule.alpha);
  return {std::min(a.low, b.low), std::max(a.high, b.high)};
}

Comparison compare(const std::string& name, const std::vector<double>& champion, const std::vector<double>& challenger,
                   bool share, std::optional<double> range, const PromotionRule& rule) {
  Comparison result{.name = name, .json = {{"name", name}, {"rows", champion.size()}}, .power = {}};
  Json& json = result.json;
  const double n = static_cast<double>(champion.size());
  json["champion"] = std::accumulate(champion.begin(), champion.end(), 0.0) / n;
  json["challenger"] = std::accumulate(challenger.begin(), challenger.end(), 0.0) / n;
  ConfidenceBounds bounds;
  if (share) {
    const Discordant pairs = discordant_of(champion, challenger);
    bounds = exact_difference_bounds(pairs, rule.alpha);
    result.not_worse = exact_above_p_value(pairs, -rule.margin);
    result.worse = exact_below_p_value(pairs, -rule.margin);
    // A gain by luck is not counted on.
    const double gains = static_cast<double>(pairs.gains) / n, losses = static_cast<double>(pairs.losses) / n;
    const double equal = (gains + losses) / 2;
    result.power = gains > losses ? power_terms(equal, equal, rule.margin) : power_terms(gains, losses, rule.margin);
    json["difference"] = pairs.difference();
    json["gains"] = pairs.gains;
    json["losses"] = pairs.losses;
    json["mcnemar_p_value"] = mcnemar_p_value(pairs);
  } else {
    std::vector<double> differences;
    for (size_t i = 0; i < champion.size(); ++i) differences.push_back(challenger[i] - champion[i]);
    bounds = compare_scores(differences, range, rule, result);
  }
  json["low"] = bounds.low;
  json["high"] = bounds.high;
  json["not_worse_p_value"] = result.not_worse;
  json["worse_p_value"] = result.worse;
  return result;
}

std::string shown(const Json& json, const PromotionRule& rule) {
  return fmt::format("difference {:+.4g}, with {:.4g} % confidence at least {:+.4g}, and at most {:+.4g}, over {} rows",
                     json["difference"].get<double>(), 100 * (1 - rule.alpha), json["low"].get<double>(),
                     json["high"].get<double>(), json["rows"].get<int64_t>());
}

/// What has been found so far; the worst finding is the verdict.
struct Findings {
  std::vector<std::string> rejected, open, fine;
  bool hopeless = false;  // no number of rows would close what is open
  int64_t more_rows = 0;

  void missing(std::optional<int64_t> needed, int64_t rows) {
    if (!needed)
      hopeless = true;
    else
      more_rows = std::max({more_rows, *needed - rows, int64_t{1}});
  }
};

void judge_rows(const PromotionCase& given, const PromotionRule& rule, Findings& found, Json& evidence) {
  if (given.without_champion) {
    found.fine.push_back("there is no champion to compare with: floors and limits decide");
    return;
  }
  if (given.champion.empty()) {
    found.open.push_back("there is no row on which both models were asked");
    found.hopeless = true;
    return;
  }
  const bool share = rule.margin < 1 && is_share(given.champion) && is_share(given.challenger);
  evidence["test"] = share ? "exact unconditional, Tango's score" : "paired bootstrap, BCa, and Gaffke's bound";
  std::vector<Comparison> family{compare("all rows", given.champion, given.challenger, share, given.range, rule)};
  const int64_t least_rows = share ? 1 : rule.min_score_rows;
  Json small = Json::array();
  for (const PromotionSlice& slice : given.slices) {
    if (static_cast<int64_t>(slice.rows.size()) < std::max(rule.min_slice_rows, least_rows)) {
      small.push_back({{"name", slice.name}, {"rows", slice.rows.size()}});
      continue;
    }
    std::vector<double> champion, challenger;
    for (size_t row : slice.rows) {
      champion.push_back(given.champion[row]);
      challenger.push_back(given.challenger[row]);
    }
    family.push_back(compare(slice.name, champion, challenger, share, given.range, rule));
  }
  std::vector<double> worse;
  for (const Comparison& comparison : family) worse.push_back(comparison.worse);
  const std::vector<double> adjusted = holm(worse);
  for (size_t i = 0; i < family.size(); ++i) {
    family[i].json["worse_p_adjusted"] = adjusted[i];
    if (adjusted[i] <= rule.alpha)
      found.rejected.push_back(fmt::format("{}: worse by more than {}: {} (p {:.2g} after Holm)", family[i].name,
                                           rule.margin, shown(family[i].json, rule), adjusted[i]));
  }
  const Comparison& all = family.front();
  const auto rows = static_cast<int64_t>(given.champion.size());
  if (all.not_worse <= rule.alpha) {
    found.fine.push_back(
        fmt::format("no worse by {}: {} (p {:.2g})", rule.margin, shown(all.json, rule), all.not_worse));
  } else if (rows < least_rows) {
    found.open.push_back(
        fmt::format("{} rows of scores show nothing, {} may: {}", rows, least_rows, shown(all.json, rule)));
    found.missing(std::max(least_rows, rows_for_power(all.power, rule.alpha, rule.power).value_or(0)), rows);
  } else if (adjusted.front() > rule.alpha) {
    found.open.push_back(fmt::format("not shown to be no worse by {}: {} (p {:.2g})", rule.margin,
                                     shown(all.json, rule), all.not_worse));
    found.missing(rows_for_power(all.power, rule.alpha, rule.power), rows);
  }
  evidence["all"] = all.json;
  evidence["slices"] = Json::array();
  for (size_t i = 1; i < family.size(); ++i) evidence["slices"].push_back(family[i].json);
  evidence["slices_too_small"] = small;
}

/// A floor's value with what is known of its error.
struct Measured {
  double value = 0, deviation = 0;
  ConfidenceBounds bounds = {};
  int64_t n = 0;
  double span = 0;    ///< of PowerTerms
  bool known = true;  ///< there are bounds
};

Measured measured_rows(const PromotionFloor& floor, const PromotionRule& rule) {
  const std::vector<double>& rows = floor.outcomes;
  if (std::any_of(rows.begin(), rows.end(), [](double x) { return !(x >= 0 && x <= 1); }))
    fail(Exit::bad_input, "{}: a floor's outcomes must lie in 0 to 1; give a value and its standard error", floor.name);
  const auto n = static_cast<double>(rows.size());
  Measured result{.n = static_cast<int64_t>(rows.size()), .span = 1};
  result.value = std::accumulate(rows.begin(), rows.end(), 0.0) / n;
  double squares = 0;
  for (double row : rows) squares += (row - result.value) * (row - result.value);
  result.deviation = std::sqrt(squares / n);
  result.bounds = is_share(rows) ? clopper_pearson(std::llround(result.value * n), result.n, rule.alpha)
                                 : BoundedMean(rows, 0, 1, rule.resamples, rule.seed).bounds(rule.alpha);
  return result;
}

Measured measured(const PromotionFloor& floor, const PromotionRule& rule) {
  if (!floor.outcomes.empty()) return measured_rows(floor, rule);
  if (!std::isfinite(floor.value) || !(floor.standard_error >= 0))
    fail(Exit::bad_input, "{}: the value is {} ± {}", floor.name, floor.value, floor.standard_error);
  Measured result{.value = floor.value, .bounds = {floor.value, floor.value}, .n = floor.n};
  if (floor.exact) return result;
  result.known = floor.standard_error > 0;
  if (!result.known) return result;
  if (floor.n < 2) fail(Exit::bad_input, "{}: a standard error needs two rows or more", floor.name);
  const boost::math::students_t student(static_cast<double>(floor.n - 1));
  const double reach = boost::math::quantile(student, 1 - rule.alpha) * floor.standard_error;
  result.bounds = {floor.value - reach, floor.value + reach};
  result.deviation = floor.standard_error * std::sqrt(static_cast<double>(floor.n));
  return result;
}

void judge_floor(const PromotionFloor& floor, const PromotionRule& rule, Findings& found, Json& evidence) {
  const Measured is = measured(floor, rule);
  const auto [low, high] = is.bounds;
  Json json{{"name", floor.name}, {"value", is.value}, {"rows", is.n}};
  if (is.known) json.update({{"low", low}, {"high", high}});
  auto bound = [&](const char* key, const char* word, double limit, double sign) {
    json[key] = limit;
    // Turned round, so that larger is better.
    const double worst = sign > 0 ? low : -high, best = sign > 0 ? high : -low, needed = sign * limit;
    if (!is.known) {
      found.open.push_back(fmt::format("{} {:.4g}, {} {:.4g}: not shown, the {} rows do not tell how far it may be off",
                                       floor.name, is.value, word, limit, is.n));
      found.missing(is.n < 2 ? std::optional<int64_t>(2) : std::nullopt, is.n);
      return;
    }
    const std::string text = fmt::format("{} {:.4g}, from {:.4g} to {:.4g} with {:.4g} % confidence each, {} {:.4g}",
                                         floor.name, is.value, low, high, 100 * (1 - rule.alpha), word, limit);
    if (worst >= needed) {
      found.fine.push_back(text);
    } else if (best < needed) {
      found.rejected.push_back(text + ": missed");
    } else {
      found.open.push_back(text + ": not shown");
      const double variance = is.deviation * is.deviation;
      const double span = is.span * (sign > 0 ? is.value : 1 - is.value);
      found.missing(rows_for_power({0, sign * (is.value - limit), variance, variance, span}, rule.alpha, rule.power),
                    is.n);
    }
  };
  if (floor.at_least) bound("at_least", "must be at least", *floor.at_least, 1);
  if (floor.at_most) bound("at_most", "must be at most", *floor.at_most, -1);
  evidence["floors"].push_back(json);
}

void judge_limit(const PromotionLimit& limit, Findings& found, Json& evidence) {
  if (!std::isfinite(limit.value)) fail(Exit::bad_input, "{}: the value is {}", limit.name, limit.value);
  Json json{{"name", limit.name}, {"value", limit.value}};
  auto bound = [&](const char* key, const char* word, double edge, bool kept) {
    json[key] = edge;
    const std::string text = fmt::format("{} {:.6g}, must be {} {:.6g}", limit.name, limit.value, word, edge);
    kept ? found.fine.push_back(text) : found.rejected.push_back(text + ": exceeded");
  };
  if (limit.at_least) bound("at_least", "at least", *limit.at_least, limit.value >= *limit.at_least);
  if (limit.at_most) bound("at_most", "at most", *limit.at_most, limit.value <= *limit.at_most);
  evidence["limits"].push_back(json);
}

}  // namespace

const char* name_of(PromotionDecision decision) {
  switch (decision) {
    case PromotionDecision::promote:
      return "promote";
    case PromotionDecision::reject:
      return "reject";
    default:
      return "inconclusive";
  }
}

PromotionVerdict judge_promotion(const PromotionCase& given, const PromotionRule& rule) {
  check(given, rule);
  Json evidence{{"margin", rule.margin}, {"alpha", rule.alpha}, {"power", rule.power}};
  Findings found;
  judge_rows(given, rule, found, evidence);
  evidence["floors"] = Json::array();
  for (const PromotionFloor& floor : given.floors) judge_floor(floor, rule, found, evidence);
  evidence["limits"] = Json::array();
  for (const PromotionLimit& limit : given.limits) judge_limit(limit, found, evidence);

  PromotionVerdict verdict;
  if (!found.rejected.empty()) {
    verdict.decision = PromotionDecision::reject;
  } else if (found.open.empty()) {
    verdict.decision = PromotionDecision::promote;
  } else if (!found.hopeless) {
    verdict.more_rows = found.more_rows;
    found.open.push_back(fmt::format("needs {} more rows, to decide with power {:.4g}", found.more_rows, rule.power));
  }
  for (const auto* sentences : {&found.rejected, &found.open, &found.fine})
    verdict.reasons.insert(verdict.reasons.end(), sentences->begin(), sentences->end());
  evidence["decision"] = name_of(verdict.decision);
  if (verdict.more_rows) evidence["more_rows"] = *verdict.more_rows;
  evidence["reasons"] = verdict.reasons;
  verdict.evidence = std::move(evidence);
  return verdict;
}

}  // namespace retort
