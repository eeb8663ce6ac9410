// Exact match: the greedy answer, without spaces at its ends, is the expected one, and the model stops there.
#include "core/error.h"
#include "monitor/evaluator.h"

namespace retort {

static std::string stripped(const std::string& text) {
  const char* spaces = " \t\r\n";
  size_t begin = text.find_first_not_of(spaces);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(spaces) - begin + 1);
}

static RowScore score(const EvaluationRow& row, const Reply& reply) {
  if (row.prompt.empty()) {
    fail(Exit::bad_input, "{}: exact_match needs a chat with a question and an answer, the row is plain text",
         row.place);
  }
  return {reply.stopped && stripped(reply.generated) == stripped(row.expected) ? 1.0 : 0.0, 1.0};
}

extern const EvaluatorKind evaluator_exact_match;
const EvaluatorKind evaluator_exact_match{.summary = "share of rows whose greedy answer is exactly the expected one",
                                          .needs = {.generation = true},
                                          .score = score};

}  // namespace retort
