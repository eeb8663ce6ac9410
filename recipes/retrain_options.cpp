#include "recipes/retrain_options.h"

#include <charconv>

#include "core/error.h"
#include "core/jinja.h"
#include "monitor/slot.h"
#include "recipes/retrain_due.h"

namespace retort {

double days_of(const std::string& duration) {
  double number = 0;
  const char* end = duration.data() + duration.size();
  const auto [rest, error] = std::from_chars(duration.data(), end, number);
  const std::string unit(rest, end);
  const double days = unit == "h" ? 1.0 / 24 : unit == "d" ? 1 : unit == "w" ? 7 : 0;
  if (error != std::errc() || days == 0 || !(number > 0) || number > 1e6)
    fail(Exit::usage, "\"{}\" is no duration; allowed: a number and h, d or w, for instance 12h, 30d, 4w", duration);
  return number * days;
}

void from_yaml(const Yaml& node, WhenOptions& when) {
  const auto expression = [&](const Yaml& value) {
    when.expression = value.as_string();
    try {
      check_due_expression(when.expression);
    } catch (const Error& error) {
      value.refuse(error.what());
    }
  };
  when = {};
  if (node.is_scalar()) return expression(node);
  for (const auto& [key, value] : node.entries()) {
    if (key == "expression") {
      expression(value);
    } else if (key == "every") {
      when.every = value.as_string();
      try {
        days_of(when.every);
      } catch (const Error& error) {
        value.refuse(error.what());
      }
    } else if (key == "new_rows") {
      when.new_rows = value.as_int();
      if (*when.new_rows < 1) value.refuse("must be at least 1");
    } else {
      value.refuse("unknown key; allowed: expression, every, new_rows");
    }
  }
}

Json json_schema_of(WhenOptions*) {
  return {
      {"oneOf",
       {{{"type", "string"}},
        {{"type", "object"},
         {"properties",
          {{"expression", {{"type", "string"}, {"default", ""}, {"description", "over the facts; empty: not asked"}}},
           {"every", {{"type", "string"}, {"default", ""}, {"description", "the champion's age; empty: not asked"}}},
           {"new_rows",
            {{"type", "integer"},
             {"minimum", 1},
             {"default", nullptr},
             {"description", "that the champion has not seen; null: not asked"}}}}},
         {"additionalProperties", false}}}}};
}

Json json_of(const WhenOptions& when) {
  Json value = Json::object();
  if (!when.expression.empty()) value["expression"] = when.expression;
  if (!when.every.empty()) value["every"] = when.every;
  if (when.new_rows) value["new_rows"] = *when.new_rows;
  return value;
}

const Schema<FloorOptions>& schema_of(FloorOptions*) {
  using O = FloorOptions;
  static const auto schema =
      Schema<O>("floor", "A limit that a challenger keeps whatever the champion does.")
          .field("at_least", &O::at_least, "the value less its one-sided error must not be below")
          .field("at_most", &O::at_most, "the value with its one-sided error must not be above")
          .rule([](const O& o, const Yaml& node) {
            if (o.at_least.has_value() == o.at_most.has_value()) node.refuse("give one of at_least, at_most");
          });
  return schema;
}

const Schema<PromotionOptions>& schema_of(PromotionOptions*) {
  using O = PromotionOptions;
  static const auto schema =
      Schema<O>("gate", "What a challenger must show on the held-out rows before it replaces the champion.")
          .field("evaluator", &O::evaluator, "its name or kind in evaluate; empty: the first that looks at rows")
          .field("margin", &O::margin, "how much worse than the champion counts as no worse, in the evaluator's unit",
                 {.minimum = 0})
          .field("alpha", &O::alpha,
                 "probability of promoting one that is worse by the margin: at most for outcomes of 0 or 1, about for "
                 "scores",
                 {.minimum = 1e-6, .maximum = 0.5})
          .field("slices", &O::slices, "also judged apart, with Holm's correction: rows by expected answer, or by file",
                 {.one_of = {"none", "answer", "file"}})
          .field("min_slice_rows", &O::min_slice_rows, "smaller slices are not judged apart", {.minimum = 2})
          .field("floors", &O::floors, "evaluator: limit")
          .field("max_bytes", &O::max_bytes, "of the shipped file", {.minimum = 1})
          .field("max_first_token_seconds", &O::max_first_token_seconds, "measured on this machine",
                 {.minimum = 0, .minimum_open = true})
          .field("min_tokens_per_second", &O::min_tokens_per_second, "generated, measured on this machine",
                 {.minimum = 0});
  return schema;
}

const Schema<NotifyOptions>& schema_of(NotifyOptions*) {
  using O = NotifyOptions;
  static const auto schema =
      Schema<O>("notify", "Who is told of a verdict.")
          .field("command", &O::command, "a program and its arguments; gets the verdict as JSON on stdin")
          .field("webhook", &O::webhook, "a URL that gets it by POST")
          .field("when_nothing_is_due", &O::when_nothing_is_due, "also then");
  return schema;
}

const Schema<RetrainOptions>& schema_of(RetrainOptions*) {
  using O = RetrainOptions;
  static const auto schema =
      Schema<O>("retrain", "When a new model is due, what it must not lose, and who is told (docs/operations.md).")
          .field("registry", &O::registry, "its folder; empty: <output_dir>/registry")
          .field("model", &O::model, "its name in the registry; empty: the recipe's name")
          .field("slot", &O::slot, "one verdict a slot: run twice in it, the second tells what the first decided",
                 {.one_of = slot_units()})
          .field("when", &O::when,
                 "an expression over drift, harmful, new_rows, rows and age_days, or a mapping with every: 30d, "
                 "new_rows: 5000, expression: any of them makes it due")
          .field("min_new_rows", &O::min_new_rows, "with fewer the answer is: not enough new data", {.minimum = 0})
          .field("harm", &O::harm,
                 "drift is harmless while the champion's accuracy on labelled traffic is not lower than at its "
                 "promotion by this much; empty: every drift counts",
                 {.minimum = 0, .maximum = 1})
          .field("gate", &O::gate, "challenger against champion")
          .field("watch_slots", &O::watch_slots,
                 "slots after a promotion in which an alarm takes it back; 0: never by itself", {.minimum = 0})
          .field("keep", &O::keep,
                 "slots before the last whose files stay in output_dir, of those that trained and of the others; "
                 "`retort registry gc` tidies the registry",
                 {.minimum = 0})
          .field("notify", &O::notify, "who is told")
          .field("metrics", &O::metrics, "OpenMetrics text for node_exporter's textfile folder; empty: none")
          .field("router", &O::router,
                 "a router's file (docs/router.md), revoked by a promotion, a roll-back and an alarm; empty: none");
  return schema;
}

}  // namespace retort
