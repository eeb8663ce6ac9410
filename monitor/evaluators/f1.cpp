// SQuAD's F1: the words that the greedy answer and the expected one share.
#include "monitor/evaluator.h"
#include "monitor/text_metrics.h"

namespace retort {

extern const EvaluatorKind evaluator_f1;
const EvaluatorKind evaluator_f1{
    .summary = "F1 of the words of the greedy answer and the expected one, as in SQuAD",
    .unit = "share",
    .better = 1,
    .schema = evaluator_schema_of<AnswerOptions>,
    .read = read_evaluator_options<AnswerOptions>,
    .needs = needs_answer,
    .score = [](const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) -> RowScore {
      require_question(row, "f1");
      return {token_f1(reply.generated, row.expected), 1.0};
    }};

}  // namespace retort
