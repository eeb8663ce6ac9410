// Perplexity of the trained tokens: exp of the mean negative log-probability.
#include <cmath>

#include "core/error.h"
#include "monitor/evaluator.h"

namespace retort {
namespace {

RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  if (reply.targets.empty()) fail(Exit::bad_input, "{}: perplexity needs a trained token", row.place);
  RowScore result{0, static_cast<double>(reply.targets.size())};
  for (double log_probability : reply.targets) result.numerator -= log_probability;
  return result;
}

Json details(const EvaluatorOptions&, std::span<const EvaluationRow> rows, std::span<const RowScore> scores) {
  double nats = 0, bytes = 0, tokens = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    nats += scores[i].numerator;
    tokens += scores[i].denominator;
    bytes += static_cast<double>(rows[i].trained_bytes);
  }
  Json result{{"nats_per_token", nats / tokens}, {"tokens", tokens}};
  if (bytes > 0) result["bits_per_byte"] = nats / std::log(2.0) / bytes;
  return result;
}

}  // namespace

extern const EvaluatorKind evaluator_perplexity;
const EvaluatorKind evaluator_perplexity{.summary = "perplexity of the trained tokens",
                                         .unit = "",
                                         .better = -1,
                                         .needs = [](const EvaluatorOptions&) { return Needs{.targets = true}; },
                                         .score = score,
                                         .link = [](double ratio) { return std::exp(ratio); },
                                         .slope = [](double ratio) { return std::exp(ratio); },
                                         .details = details};

}  // namespace retort
