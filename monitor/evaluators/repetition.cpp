// How much the greedy answers repeat themselves: the share of their 4-grams of words that stood in the same answer
// before.
#include "monitor/evaluator.h"
#include "monitor/text_metrics.h"

namespace retort {
namespace {

RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  require_question(row, "repetition");
  const NgramCounts one = ngrams_of_words(reply.generated, 1), two = ngrams_of_words(reply.generated, 2),
                    four = ngrams_of_words(reply.generated, 4);
  return {static_cast<double>(four.total - four.distinct),
          static_cast<double>(four.total),
          {static_cast<double>(one.distinct), static_cast<double>(one.total), static_cast<double>(two.distinct),
           static_cast<double>(two.total)}};
}

Json details(const EvaluatorOptions&, std::span<const EvaluationRow>, std::span<const RowScore> scores) {
  double sums[4] = {};
  for (const RowScore& score : scores)
    for (size_t i = 0; i < 4; ++i) sums[i] += score.figures[i];
  return {{"distinct_1", sums[0] / std::max(sums[1], 1.0)}, {"distinct_2", sums[2] / std::max(sums[3], 1.0)}};
}

}  // namespace

extern const EvaluatorKind evaluator_repetition;
const EvaluatorKind evaluator_repetition{
    .summary = "share of 4-grams of words that stood in the same answer before; also distinct words and pairs of words",
    .unit = "share",
    .better = -1,
    .schema = evaluator_schema_of<AnswerOptions>,
    .read = read_evaluator_options<AnswerOptions>,
    .needs = needs_answer,
    .score = score,
    .details = details};

}  // namespace retort
