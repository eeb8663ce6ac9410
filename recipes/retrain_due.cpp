#include "recipes/retrain_due.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/jinja.h"
#include "core/schema.h"

namespace retort {
namespace {

JinjaTemplate test_of(const std::string& expression) {
  return JinjaTemplate("{% if " + expression + " %}due{% endif %}", "retrain.when");
}

}  // namespace

Json DueFacts::to_json() const {
  const auto known = [](const std::optional<bool>& value) { return value ? Json(*value) : Json(); };
  return {{"champion", champion}, {"drift", known(drift)}, {"harmful", known(harmful)},
          {"rows", rows},         {"new_rows", new_rows},  {"age_days", age_days}};
}

void check_due_expression(const std::string& expression) {
  std::vector<std::string> facts;
  const Json known = DueFacts().to_json();
  for (const auto& [name, value] : known.items()) facts.push_back(name);
  for (const std::string& name : test_of(expression).variables())
    if (!known.contains(name)) fail(Exit::usage, "\"{}\": {}", expression, not_among(name, facts));
}

Due is_due(const RetrainOptions& options, const DueFacts& facts) {
  if (!facts.champion) return {true, {"there is no champion yet"}};
  Due due;
  const WhenOptions& when = options.when;
  if (!when.expression.empty() && test_of(when.expression).render(facts.to_json()) == "due")
    due.reasons.push_back(when.expression == "drift" ? "the domain has moved" : "when: " + when.expression);
  const bool by_expression = !due.reasons.empty();
  if (!when.every.empty() && facts.age_days >= days_of(when.every))
    due.reasons.push_back(fmt::format("the champion is {:.0f} days old (every: {})", facts.age_days, when.every));
  if (when.new_rows && facts.new_rows >= *when.new_rows)
    due.reasons.push_back(fmt::format("{} new rows (new_rows: {})", facts.new_rows, *when.new_rows));
  due.due = !due.reasons.empty();
  if (!due.due) {
    due.reasons.push_back(fmt::format("nothing is due: {}; {} new rows; the champion is {:.0f} days old",
                                      !facts.drift   ? "drift was not looked at"
                                      : *facts.drift ? "drift"
                                                     : "no drift",
                                      facts.new_rows, facts.age_days));
    return due;
  }
  // Drift alone is a reason only while it harms; an age or a number of rows was asked for as such.
  const bool drift_alone = by_expression && due.reasons.size() == 1 && facts.drift.value_or(false);
  if (drift_alone && options.harm && facts.harmful == false) {
    due.due = false;
    due.reasons.push_back("harmless drift: the champion answers labelled traffic as well as at its promotion");
  } else if (drift_alone && options.harm && !facts.harmful) {
    due.reasons.push_back("whether the drift harms cannot be told: the traffic has too few labels");
  }
  if (facts.new_rows < options.min_new_rows) {
    due.due = false;
    due.reasons.push_back(fmt::format("not enough new data: {} new rows, {} are needed (min_new_rows)", facts.new_rows,
                                      options.min_new_rows));
  }
  return due;
}

}  // namespace retort
