// Perplexity of the trained tokens: exp of the mean negative log-probability.
#include <cmath>

#include "core/error.h"
#include "monitor/evaluate.h"

namespace retort {
namespace {

RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  if (reply.targets.empty()) fail(Exit::bad_input, "{}: perplexity needs a trained token", row.place);
  RowScore result{0, static_cast<double>(reply.targets.size())};
  for (double log_probability : reply.targets) result.numerator -= log_probability;
  return result;
}

Json details(const EvaluatorOptions&, std::span<const EvaluationRow> rows, std::span<const RowScore> scores) {
  double tokens = 0, bytes = 0;
  std::vector<RowScore> bits;
  for (size_t i = 0; i < scores.size(); ++i) {
    bits.push_back({scores[i].numerator / std::log(2.0), static_cast<double>(rows[i].trained_bytes)});
    tokens += scores[i].denominator;
    bytes += bits.back().denominator;
  }
  Json result{{"tokens", tokens}};
  add_ratio("nats_per_token", scores, result);
  if (bytes > 0) add_ratio("bits_per_byte", bits, result);
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
