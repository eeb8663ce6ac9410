// How much the greedy answers repeat themselves: the share of their 4-grams of words that stood in the same answer
// before.
#include "monitor/evaluate.h"
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
  Json result;
  add_ratio("distinct_1", scores, 0, 1, result);
  add_ratio("distinct_2", scores, 2, 3, result);
  return result;
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
