// Exact match: the greedy answer is the expected one, after what the options make alike.
#include "monitor/evaluator.h"
#include "monitor/text_metrics.h"

namespace retort {
namespace {

struct Options : AnswerOptions {
  bool strip = true, squad = false, ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
  bool must_stop = true;
  bool as_it_is() const { return !squad && !ignore_case && !ignore_punctuation && !ignore_numbers; }
};

const Schema<Options>& schema_of(Options*) {
  static const auto schema =
      answer_schema<Options>("")
          .field("strip", &Options::strip, "white space at the ends does not count")
          .field("squad", &Options::squad,
                 "nor do case, punctuation, the articles a, an, the, and how much white space is between words, as in "
                 "SQuAD's exact match")
          .field("ignore_case", &Options::ignore_case, "nor does case")
          .field("ignore_punctuation", &Options::ignore_punctuation, "nor does ASCII punctuation")
          .field("ignore_numbers", &Options::ignore_numbers, "nor do the digits 0 to 9")
          .field("must_stop", &Options::must_stop, "an answer that max_tokens ended is wrong");
  return schema;
}

std::string stripped(const std::string& text) {
  const char* spaces = " \t\r\n";
  const size_t begin = text.find_first_not_of(spaces);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(spaces) - begin + 1);
}

std::string compared(const Options& options, const std::string& text) {
  const std::string changed = options.squad ? normalized(text, kSquadNormalization)
                                            : normalized(text, {.lower_case = options.ignore_case,
                                                                .no_punctuation = options.ignore_punctuation,
                                                                .no_numbers = options.ignore_numbers});
  return options.strip ? stripped(changed) : changed;
}

RowScore score(const EvaluatorOptions& given, const EvaluationRow& row, const Reply& reply) {
  require_question(row, "exact_match");
  const auto& options = static_cast<const Options&>(given);
  const bool equal = compared(options, reply.generated) == compared(options, row.expected);
  return {equal && (reply.stopped || !options.must_stop) ? 1.0 : 0.0, 1.0};
}

}  // namespace

extern const EvaluatorKind evaluator_exact_match;
const EvaluatorKind evaluator_exact_match{.summary = "share of rows whose greedy answer is the expected one",
                                          .unit = "share",
                                          .better = 1,
                                          .schema = evaluator_schema_of<Options>,
                                          .read = read_evaluator_options<Options>,
                                          .needs =
                                              [](const EvaluatorOptions& given) {
                                                const auto& options = static_cast<const Options&>(given);
                                                const bool match = options.as_it_is() && options.strip;
                                                return Needs{
                                                    .match = match, .answer = !match, .max_tokens = options.max_tokens};
                                              },
                                          .score = score};

}  // namespace retort
