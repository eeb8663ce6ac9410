// How often the model refuses to answer, by the wording of its greedy answers.
#include "monitor/evaluator.h"
#include "monitor/text_metrics.h"

namespace retort {

extern const EvaluatorKind evaluator_refusal;
const EvaluatorKind evaluator_refusal{
    .summary = "share of greedy answers that begin with a refusal, by a list of English phrases",
    .unit = "share",
    .schema = evaluator_schema_of<AnswerOptions>,
    .read = read_evaluator_options<AnswerOptions>,
    .needs = needs_answer,
    .score = [](const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) -> RowScore {
      require_question(row, "refusal");
      return {is_refusal(reply.generated) ? 1.0 : 0.0, 1.0};
    }};

}  // namespace retort
