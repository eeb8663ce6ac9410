// ROUGE-L: the longest common subsequence of the words of the greedy answer and the expected one.
#include "monitor/evaluator.h"
#include "monitor/text_metrics.h"

namespace retort {

extern const EvaluatorKind evaluator_rouge_l;
const EvaluatorKind evaluator_rouge_l{
    .summary = "ROUGE-L's F measure of the greedy answer, as rouge_score computes it without a stemmer",
    .unit = "share",
    .better = 1,
    .schema = evaluator_schema_of<AnswerOptions>,
    .read = read_evaluator_options<AnswerOptions>,
    .needs = needs_answer,
    .score = [](const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) -> RowScore {
      require_question(row, "rouge_l");
      return {rouge_l(reply.generated, row.expected), 1.0};
    }};

}  // namespace retort
