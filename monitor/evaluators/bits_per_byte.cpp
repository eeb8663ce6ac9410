// Bits that the model needs for a byte of the trained tokens' text: perplexity for comparing models with different
// vocabularies. The tokens that are no text (the end of a turn) are counted among the bits.
#include <cmath>

#include "core/error.h"
#include "monitor/evaluator.h"

namespace retort {

static RowScore score(const EvaluatorOptions&, const EvaluationRow& row, const Reply& reply) {
  if (row.trained_bytes == 0) fail(Exit::bad_input, "{}: bits_per_byte needs a trained token with text", row.place);
  RowScore result{0, static_cast<double>(row.trained_bytes)};
  for (double log_probability : reply.targets) result.numerator -= log_probability / std::log(2.0);
  return result;
}

extern const EvaluatorKind evaluator_bits_per_byte;
const EvaluatorKind evaluator_bits_per_byte{
    .summary = "bits for a byte of the trained tokens' text, comparable between vocabularies",
    .unit = "bits",
    .better = -1,
    .needs = [](const EvaluatorOptions&) { return Needs{.targets = true}; },
    .score = score};

}  // namespace retort
