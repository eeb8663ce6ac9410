// How long the greedy answers are: a model that was trained on short answers and rambles, or the other way round.
#include "monitor/evaluate.h"

namespace retort {
namespace {

RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  require_question(row, "length");
  const auto tokens = static_cast<double>(reply.generated_tokens);
  return {tokens,
          1.0,
          {static_cast<double>(reply.generated.size()), static_cast<double>(row.expected.size()),
           !reply.stopped ? 1.0 : 0.0}};
}

Json details(const EvaluatorOptions&, std::span<const EvaluationRow>, std::span<const RowScore> scores) {
  Json result;
  add_ratio("mean_bytes", scores, 0, result);
  add_ratio("mean_expected_bytes", scores, 1, result);
  add_ratio("cut_share", scores, 2, result);
  return result;
}

}  // namespace

extern const EvaluatorKind evaluator_length;
const EvaluatorKind evaluator_length{
    .summary =
        "tokens of the greedy answer; also its bytes beside the expected one's, and the share that max_tokens cut",
    .unit = "tokens",
    .schema = evaluator_schema_of<AnswerOptions>,
    .read = read_evaluator_options<AnswerOptions>,
    .needs = needs_answer,
    .score = score,
    .details = details};

}  // namespace retort
