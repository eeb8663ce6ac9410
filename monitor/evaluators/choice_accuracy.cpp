// Accuracy among the row's choices: the one with the highest total log-probability, its end-of-turn included. The
// end-of-turn makes answers of different lengths comparable: each total is the probability that the model gives exactly
// this answer.
#include <algorithm>

#include "core/error.h"
#include "monitor/evaluator.h"

namespace retort {

static RowScore score(const EvaluationRow& row, const Reply& reply) {
  if (row.choices.size() < 2) {
    fail(Exit::bad_input, "{}: choice_accuracy needs at least two choices, the row has {}; give the task `choices`",
         row.place, row.choices.size());
  }
  if (std::find(row.choices.begin(), row.choices.end(), row.expected) == row.choices.end()) {
    fail(Exit::bad_input, "{}: the expected answer \"{}\" is none of the row's {} choices", row.place, row.expected,
         row.choices.size());
  }
  auto best = std::max_element(reply.choices.begin(), reply.choices.end()) - reply.choices.begin();
  return {row.choices[static_cast<size_t>(best)] == row.expected ? 1.0 : 0.0, 1.0};
}

extern const EvaluatorKind evaluator_choice_accuracy;
const EvaluatorKind evaluator_choice_accuracy{
    .summary = "accuracy among the row's choices, by the total log-probability of each",
    .needs = {.choices = true},
    .score = score};

}  // namespace retort
