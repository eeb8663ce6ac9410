// A router on held-out rows: what it sends where, and what that costs and keeps.
#include <algorithm>
#include <cmath>

#include "report/format.h"
#include "report/view.h"

namespace retort {
namespace {

Json fact(const std::string& label, const std::string& value) { return {{"label", label}, {"value", value}}; }

/// A curve's outcome at a share of prompts to the large model, between its points.
Json outcome_at(const Json& points, double share) {
  for (size_t i = 1; i < points.size(); ++i) {
    const Json &a = points[i - 1], &b = points[i];
    for (const Json* point : {&a, &b})
      if (!point->is_array() || point->size() != 2 || !(*point)[0].is_number() || !(*point)[1].is_number())
        return nullptr;
    const double from = a[0].get<double>(), to = b[0].get<double>();
    if (share > to + 1e-12 || to <= from) continue;
    const double part = std::clamp((share - from) / (to - from), 0.0, 1.0);
    return a[1].get<double>() + part * (b[1].get<double>() - a[1].get<double>());
  }
  return nullptr;
}

constexpr const char* kRules[] = {"router", "random", "oracle"};

}  // namespace

Json router_view(const Json& report) {
  const Json& router = value_at(report, "/router");
  if (!router.is_object()) return nullptr;
  Json facts = Json::array(), rules = Json::array(), steps = Json::array();
  auto add = [&](const char* label, const std::string& value) {
    if (value != "–") facts.push_back(fact(label, value));
  };
  add("Rows", show_count(value_at(router, "/rows")));
  add("Threshold of the score", show_number(value_at(router, "/threshold"), 4));
  add("Small model alone", show_percent(value_at(router, "/small_alone"), 1));
  add("Large model alone", show_percent(value_at(router, "/large_alone"), 1));
  add("With the router", show_percent(value_at(router, "/chosen/quality"), 1));
  add("Sent to the small model", show_percent(value_at(router, "/chosen/to_small"), 1));
  add("Lost by that", show_percent(value_at(router, "/chosen/loss"), 1));
  add("Lost by that, at least", show_percent(value_at(router, "/chosen/loss_at_least"), 1));
  add("Lost by that, at most", show_percent(value_at(router, "/chosen/loss_at_most"), 1));
  add("Performance gap recovered", show_number(value_at(router, "/chosen/pgr"), 3));
  add("Cost a prompt", show_number(value_at(router, "/chosen/cost"), 3));
  add("Cost of the large model alone", show_number(value_at(router, "/chosen/large_cost"), 3));
  add("Negative log-likelihood", show_number(value_at(router, "/calibration/nll"), 3));
  add("Brier score", show_number(value_at(router, "/calibration/brier"), 3));
  add("Calibration error, 15 bins", show_number(value_at(router, "/calibration/ece"), 3));
  for (const char* rule : kRules) {
    const Json& curve = value_at(router, std::string("/curves/") + rule);
    rules.push_back({{"name", rule},
                     {"apgr", show_number(value_at(curve, "/apgr"), 3)},
                     {"cpt20", show_percent(value_at(curve, "/cpt/20"), 1)},
                     {"cpt50", show_percent(value_at(curve, "/cpt/50"), 1)},
                     {"cpt80", show_percent(value_at(curve, "/cpt/80"), 1)}});
  }
  for (int step = 0; step <= 10; ++step) {
    Json row{{"share", fmt::format("{} %", 10 * step)}};
    for (const char* rule : kRules)
      row[rule] = show_percent(outcome_at(list_at(router, std::string("/curves/") + rule + "/points"), step / 10.0), 1);
    steps.push_back(std::move(row));
  }
  return {{"facts", facts},
          {"rules", rules},
          {"steps", steps},
          {"small", text_at(router, "/small_sha256")},
          {"large", text_at(router, "/large_sha256")}};
}

Json router_title(const Json& report) {
  const Json &loss = value_at(report, "/router/chosen/loss"), &least = value_at(report, "/router/chosen/loss_at_least"),
             &epsilon = value_at(report, "/router/epsilon");
  if (!value_at(report, "/router/threshold").is_number())
    return {{"status", "plain"},
            {"status_text", "Every prompt goes to the large model"},
            {"sentence", "No threshold could be shown to keep the loss below its limit."}};
  // Rows are a sample: only a loss that is above the limit with confidence says that the bound was broken.
  const bool kept = least.is_number() && epsilon.is_number() && least.get<double>() <= epsilon.get<double>();
  return {{"status", kept ? "good" : "bad"},
          {"status_text", kept ? "The loss keeps its limit" : "The loss is above its limit"},
          {"sentence", fmt::format("The small model answers {} of these prompts; {} lose by it, {} may.",
                                   show_percent(value_at(report, "/router/chosen/to_small"), 1), show_percent(loss, 1),
                                   show_percent(epsilon, 1))}};
}

Json router_tiles(const Json& report) {
  const Json& router = value_at(report, "/router");
  return Json::array({{{"label", "Sent to the small model"},
                       {"value", show_percent(value_at(router, "/chosen/to_small"), 1)},
                       {"note", show_count(value_at(router, "/rows")) + " rows"}},
                      {{"label", "Right, with the router"},
                       {"value", show_percent(value_at(router, "/chosen/quality"), 1)},
                       {"note", "large model alone " + show_percent(value_at(router, "/large_alone"), 1)}},
                      {{"label", "Lost by routing"},
                       {"value", show_percent(value_at(router, "/chosen/loss"), 1)},
                       {"note", "limit " + show_percent(value_at(router, "/epsilon"), 1)}},
                      {{"label", "APGR"},
                       {"value", show_number(value_at(router, "/curves/router/apgr"), 3)},
                       {"note", "by chance " + show_number(value_at(router, "/curves/random/apgr"), 3)}}});
}

}  // namespace retort
