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

Comparison compare(const std::string& name, const std::vector<double>& champion, const std::vector<double>& challenger,
                   bool share, const PromotionRule& rule) {
  Comparison result{.name = name, .json = {{"name", name}, {"rows", champion.size()}}, .power = {}};
  if (champion.empty()) return result;
  Json& json = result.json;
  const double n = static_cast<double>(champion.size());
  json["champion"] = std::accumulate(champion.begin(), champion.end(), 0.0) / n;
  json["challenger"] = std::accumulate(challenger.begin(), challenger.end(), 0.0) / n;
  ConfidenceBounds bounds;
  if (share && rule.margin < 1) {
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
    const PairedBootstrap bootstrap(differences, rule.resamples, rule.seed);
    bounds = bootstrap.bounds(rule.alpha);
    if (differences.size() > 1) {  // one row tells nothing of the others
      result.not_worse = bootstrap.above_p_value(-rule.margin);
      result.worse = bootstrap.below_p_value(-rule.margin);
    }
    const double variance = bootstrap.deviation() * bootstrap.deviation();
    result.power = {rule.margin, std::min(0.0, bootstrap.mean()), variance, variance};
    json["difference"] = bootstrap.mean();
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
  if (given.champion.empty()) {
    found.open.push_back("there is no row on which both models were asked");
    found.hopeless = true;
    return;
  }
  const bool share = is_share(given.champion) && is_share(given.challenger);
  evidence["test"] = share && rule.margin < 1 ? "exact unconditional, Tango's score" : "paired bootstrap, BCa";
  std::vector<Comparison> family{compare("all rows", given.champion, given.challenger, share, rule)};
  Json small = Json::array();
  for (const PromotionSlice& slice : given.slices) {
    if (static_cast<int64_t>(slice.rows.size()) < rule.min_slice_rows) {
      small.push_back({{"name", slice.name}, {"rows", slice.rows.size()}});
      continue;
    }
    std::vector<double> champion, challenger;
    for (size_t row : slice.rows) {
      champion.push_back(given.champion[row]);
      challenger.push_back(given.challenger[row]);
    }
    family.push_back(compare(slice.name, champion, challenger, share, rule));
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

void judge_floor(PromotionFloor floor, const PromotionRule& rule, Findings& found, Json& evidence) {
  double low = floor.value, high = floor.value, deviation = 0;
  if (!floor.outcomes.empty()) {
    if (!is_share(floor.outcomes))
      fail(Exit::bad_input, "{}: a floor's outcomes must be 0 or 1; give a value and its standard error", floor.name);
    floor.n = static_cast<int64_t>(floor.outcomes.size());
    const double right = std::accumulate(floor.outcomes.begin(), floor.outcomes.end(), 0.0);
    floor.value = right / static_cast<double>(floor.n);
    const ConfidenceBounds bounds = clopper_pearson(static_cast<int64_t>(right), floor.n, rule.alpha);
    low = bounds.low;
    high = bounds.high;
    deviation = std::sqrt(floor.value * (1 - floor.value));
  } else {
    if (!std::isfinite(floor.value) || !(floor.standard_error >= 0))
      fail(Exit::bad_input, "{}: the value is {} ± {}", floor.name, floor.value, floor.standard_error);
    if (floor.standard_error > 0) {
      if (floor.n < 2) fail(Exit::bad_input, "{}: a standard error needs two rows or more", floor.name);
      const boost::math::students_t student(static_cast<double>(floor.n - 1));
      const double reach = boost::math::quantile(student, 1 - rule.alpha) * floor.standard_error;
      low = floor.value - reach;
      high = floor.value + reach;
      deviation = floor.standard_error * std::sqrt(static_cast<double>(floor.n));
    }
  }
  Json json{{"name", floor.name}, {"value", floor.value}, {"low", low}, {"high", high}, {"rows", floor.n}};
  auto bound = [&](const char* key, const char* word, double limit, double sign) {
    json[key] = limit;
    // Turned round, so that larger is better.
    const double worst = sign > 0 ? low : -high, best = sign > 0 ? high : -low, needed = sign * limit;
    const std::string text = fmt::format("{} {:.4g}, from {:.4g} to {:.4g} with {:.4g} % confidence each, {} {:.4g}",
                                         floor.name, floor.value, low, high, 100 * (1 - rule.alpha), word, limit);
    if (worst >= needed) {
      found.fine.push_back(text);
    } else if (best < needed) {
      found.rejected.push_back(text + ": missed");
    } else {
      found.open.push_back(text + ": not shown");
      const double variance = deviation * deviation;
      found.missing(rows_for_power({0, sign * (floor.value - limit), variance, variance}, rule.alpha, rule.power),
                    floor.n);
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
