// What a million tokens cost: by the price of an hour of this machine and the speed measured on it, or by list prices.
#include <cmath>

#include "monitor/evaluator.h"
#include "monitor/speed_estimate.h"

namespace retort {
namespace {

/// A line of the price table.
struct Price {
  std::string name;
  std::optional<double> machine_hour, input, output;
};
const Schema<Price>& schema_of(Price*) {
  static const auto schema =
      Schema<Price>("price", "What a machine or a service costs.")
          .field("name", &Price::name, "what reports call it", {.required = true})
          .field("machine_hour", &Price::machine_hour, "an hour of this machine, which serves one request at a time",
                 {.minimum = 0})
          .field("input", &Price::input, "instead, a list price: a million prompt tokens", {.minimum = 0})
          .field("output", &Price::output, "and a million generated tokens", {.minimum = 0})
          .rule([](const Price& price, const Yaml& node) {
            const bool listed = price.input && price.output, partly = price.input || price.output;
            if (price.machine_hour.has_value() == partly || partly != listed)
              node.refuse("a price is either machine_hour, or input and output");
          });
  return schema;
}

struct Options : EvaluatorOptions {
  std::vector<Price> prices;
  std::string currency = "USD";
  double output_share = 0.25;
  int64_t runs = 3;
};
const Schema<Options>& schema_of(Options*) {
  static const auto schema =
      evaluator_schema<Options>("")
          .field("prices", &Options::prices, "the price table; the first line is the evaluator's value",
                 {.required = true})
          .field("currency", &Options::currency, "of the table")
          .field("output_share", &Options::output_share, "generated tokens among all", {.minimum = 0, .maximum = 1})
          .field("runs", &Options::runs, "as of latency", {.minimum = 1, .maximum = 1000})
          .rule([](const Options& options, const Yaml& node) {
            if (options.prices.empty()) node["prices"].refuse("at least one price is needed");
          });
  return schema;
}

/// Money for a million tokens, with the standard error of the speeds that it comes from.
struct Cost {
  Rate input, output;
};

Rate scaled(const Rate& rate, double factor) { return {rate.value * factor, rate.standard_error * factor}; }

std::vector<Evaluation> measure(const EvaluatorOptions& given, const Measured& measured) {
  const auto& options = static_cast<const Options&>(given);
  Rate prompt, generation;  // seconds for a million tokens here
  for (const Price& price : options.prices) {
    if (!price.machine_hour || prompt.value > 0) continue;
    const ServedOptions& served = measured.model.options();
    const SpeedRuns speed =
        measure_speed_runs(measured.model.path(), static_cast<int>(options.runs), served.threads, served.adapter);
    prompt = scaled(mean_of(speed.prompt_seconds), 1e6 / static_cast<double>(speed.prompt_tokens));
    generation = scaled(mean_of(speed.generation_seconds), 1e6 / static_cast<double>(speed.generated_tokens));
  }
  Evaluation result;
  result.unit = options.currency + " per million tokens";
  Json table = Json::array();
  for (const Price& price : options.prices) {
    const Cost cost = price.machine_hour ? Cost{scaled(prompt, *price.machine_hour / 3600),
                                                scaled(generation, *price.machine_hour / 3600)}
                                         : Cost{{*price.input, 0}, {*price.output, 0}};
    const double share = options.output_share;
    const Rate both{(1 - share) * cost.input.value + share * cost.output.value,
                    std::hypot((1 - share) * cost.input.standard_error, share * cost.output.standard_error)};
    if (table.empty()) {
      result.value = both.value;
      result.standard_error = both.standard_error;
      result.n = price.machine_hour ? options.runs : 1;
    }
    table.push_back({{"name", price.name},
                     {"input", cost.input.value},
                     {"input_stderr", cost.input.standard_error},
                     {"output", cost.output.value},
                     {"output_stderr", cost.output.standard_error},
                     {"both", both.value},
                     {"both_stderr", both.standard_error}});
  }
  // A list price has no error.
  result.details = {{"output_share", options.output_share},
                    {"prices", std::move(table)},
                    {"exact", !options.prices.front().machine_hour}};
  return {result};
}

}  // namespace

extern const EvaluatorKind evaluator_cost;
const EvaluatorKind evaluator_cost{
    .summary = "money for a million tokens, from a price table and the speed measured here",
    .unit = "",
    .better = -1,
    .schema = evaluator_schema_of<Options>,
    .read = read_evaluator_options<Options>,
    .measure = measure};

}  // namespace retort
