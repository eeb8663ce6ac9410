// Accuracy among the row's choices: the one with the highest log-probability, as it is or by its length.
#include <algorithm>

#include "data/text_input.h"
#include "monitor/evaluator.h"

namespace retort {
namespace {

struct Options : EvaluatorOptions {
  std::string normalize = "none";
};

const Schema<Options>& schema_of(Options*) {
  static const auto schema = evaluator_schema<Options>("").field(
      "normalize", &Options::normalize,
      "what a choice's log-probability is divided by: nothing, its characters (lm-evaluation-harness' acc_norm) or "
      "its bytes (acc_bytes)",
      {.one_of = {"none", "characters", "bytes"}});
  return schema;
}

const std::string& normalization(const EvaluatorOptions& options) {
  return static_cast<const Options&>(options).normalize;
}

RowScore score(const EvaluatorOptions& options, const EvaluationRow& row, const Reply& reply) {
  const size_t expected = expected_choice(row, "choice_accuracy");
  const std::string& by = normalization(options);
  std::vector<double> scores = reply.choices;
  for (size_t c = 0; c < scores.size(); ++c) {
    if (by == "characters") scores[c] /= static_cast<double>(std::max<size_t>(utf8_length(row.choices[c]), 1));
    if (by == "bytes") scores[c] /= static_cast<double>(std::max<size_t>(row.choices[c].size(), 1));
  }
  const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  // Figures: what says that these are numbers. An upper bound may be the best of nothing.
  return {row.choices[static_cast<size_t>(best)] == row.choices[expected] ? 1.0 : 0.0, 1.0, reply.choices};
}

}  // namespace

extern const EvaluatorKind evaluator_choice_accuracy;
const EvaluatorKind evaluator_choice_accuracy{.summary = "share of rows whose most likely choice is the expected one",
                                              .unit = "share",
                                              .better = 1,
                                              .schema = evaluator_schema_of<Options>,
                                              .read = read_evaluator_options<Options>,
                                              .needs =
                                                  [](const EvaluatorOptions& options) {
                                                    return Needs{.choices = true,
                                                                 .every_choice = normalization(options) != "none"};
                                                  },
                                              .score = score};

}  // namespace retort
