// Perplexity of the trained tokens: exp of the mean negative log-probability; also bits per byte of their text, which
// compares models with different vocabularies.
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "monitor/evaluator.h"

namespace retort {

static RowScore score(const EvaluationRow& row, const Reply& reply) {
  if (reply.targets.empty()) fail(Exit::bad_input, "{}: perplexity needs a trained token", row.place);
  RowScore result;
  for (double log_probability : reply.targets) result.numerator -= log_probability;
  result.denominator = static_cast<double>(reply.targets.size());
  return result;
}

static std::map<std::string, double> details(std::span<const EvaluationRow> rows, std::span<const RowScore> scores) {
  double nats = 0, bytes = 0, tokens = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    nats += scores[i].numerator;
    tokens += scores[i].denominator;
    bytes += static_cast<double>(rows[i].trained_bytes);
  }
  std::map<std::string, double> result{{"nats_per_token", nats / tokens}, {"tokens", tokens}};
  if (bytes > 0) result["bits_per_byte"] = nats / std::numbers::ln2 / bytes;
  return result;
}

extern const EvaluatorKind evaluator_perplexity;
const EvaluatorKind evaluator_perplexity{.summary = "perplexity of the trained tokens, and bits per byte",
                                         .needs = {.targets = true},
                                         .score = score,
                                         .link = [](double ratio) { return std::exp(ratio); },
                                         .slope = [](double ratio) { return std::exp(ratio); },
                                         .details = details};

}  // namespace retort
