// A task's rows as tokens, and its metrics.
#include "monitor/harness_task.h"

#include <re2/re2.h>

#include <algorithm>

#include "core/error.h"
#include "monitor/text_metrics.h"

namespace retort {
namespace {

constexpr const char* kSpaces = " \t\n\v\f\r";

std::string stripped(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  return begin == text.npos ? "" : std::string(text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1));
}

/// Python's re.findall, then the match at `select`: its first group that is not empty, or all of it without groups.
std::string found_by(const HarnessFilter& filter, const std::string& text) {
  const re2::RE2& pattern = *filter.pattern;
  std::vector<std::optional<std::string>> matches;
  std::vector<re2::StringPiece> groups(static_cast<size_t>(pattern.NumberOfCapturingGroups()) + 1);
  for (size_t at = 0; at <= text.size() && pattern.Match(text, at, text.size(), re2::RE2::UNANCHORED, groups.data(),
                                                         static_cast<int>(groups.size()));) {
    std::optional<std::string> match;
    if (groups.size() <= 2) match = groups.back().as_string();
    for (size_t g = 1; g < groups.size() && !match; ++g)
      if (!groups[g].empty()) match = groups[g].as_string();
    matches.push_back(match);
    const auto end = static_cast<size_t>(groups[0].data() - text.data()) + groups[0].size();
    at = groups[0].empty() ? end + 1 : end;
  }
  const int64_t count = std::ssize(matches);
  const int64_t chosen = filter.group_select < 0 ? count + filter.group_select : filter.group_select;
  if (chosen < 0 || chosen >= count || !matches[static_cast<size_t>(chosen)]) return filter.fallback;
  return stripped(*matches[static_cast<size_t>(chosen)]);
}

/// Tokens of a continuation that follows a context: white space at the context's end goes with the continuation, and
/// both are tokenized together, as in the harness.
struct Pair {
  std::vector<int32_t> context, continuation;
};
Pair encode_pair(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation,
                 const std::string& place) {
  const size_t end = context.find_last_not_of(kSpaces);
  const std::string before = end == std::string::npos ? "" : context.substr(0, end + 1);
  Pair pair{tokenizer.encode(before, false, true), {}};
  const std::vector<int32_t> whole = tokenizer.encode(context + continuation, false, true);
  if (pair.context.empty()) fail(Exit::bad_input, "{}: the prompt is empty", place);
  if (whole.size() > pair.context.size())
    pair.continuation.assign(whole.begin() + std::ssize(pair.context), whole.end());
  if (pair.continuation.empty()) fail(Exit::bad_input, "{}: \"{}\" adds no token to the prompt", place, continuation);
  return pair;
}

}  // namespace

std::string filtered(const HarnessPipeline& pipeline, std::string answer) {
  for (const HarnessFilter& filter : pipeline.filters) {
    if (filter.function == "regex") answer = found_by(filter, answer);
    if (filter.function == "remove_whitespace")
      answer.erase(0, std::min(answer.find_first_not_of(kSpaces), answer.size()));
    if (filter.function == "lowercase") answer = normalized(answer, {.lower_case = true});
  }
  return answer;
}

std::vector<EvaluationRow> harness_rows(const HarnessTask& task, const Tokenizer& tokenizer) {
  std::vector<EvaluationRow> rows;
  for (const HarnessDocument& document : task.documents) {
    EvaluationRow row;
    row.place = row.example.place = document.place;
    row.key = row.example.key = document.place;
    row.prompt_text = document.prompt;
    row.expected = document.target;
    row.choices = document.choices;
    row.until = task.until;
    const Pair target =
        encode_pair(tokenizer, document.prompt, task.target_delimiter + document.target, document.place);
    row.prompt = task.multiple_choice ? target.context : tokenizer.encode(document.prompt, false, true);
    for (const std::string& choice : document.choices)
      row.answers.push_back(
          encode_pair(tokenizer, document.prompt, task.target_delimiter + choice, document.place).continuation);
    row.example.ids = target.context;
    row.example.trained.assign(target.context.size(), 0);
    row.example.ids.insert(row.example.ids.end(), target.continuation.begin(), target.continuation.end());
    row.example.trained.resize(row.example.ids.size(), 1);
    row.trained_bytes = static_cast<int64_t>(tokenizer.decode(target.continuation).size());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Evaluation> evaluate_harness_task(const HarnessTask& task, std::span<const EvaluationRow> rows,
                                              const Predictor& predictor) {
  std::vector<Reply> replies(rows.size());
  // The model is asked once; every pipeline then scores its own reading of the answers.
  const Predictor recorded = [&](std::span<const Question> questions, const auto& each) {
    predictor(questions, [&](size_t i, const Reply& reply) {
      replies[i] = reply;
      each(i, reply);
    });
  };
  std::vector<Evaluation> results;
  for (size_t p = 0; p < task.pipelines.size(); ++p) {
    const HarnessPipeline& pipeline = task.pipelines[p];
    const Predictor replayed = [&](std::span<const Question> questions, const auto& each) {
      for (size_t i = 0; i < questions.size(); ++i) {
        Reply reply = replies[i];
        reply.generated = filtered(pipeline, reply.generated);
        each(i, reply);
      }
    };
    if (p == 0) evaluate(task.metrics, rows, recorded, "");
    for (Evaluation& result : evaluate(task.metrics, rows, replayed, "")) {
      if (task.pipelines.size() > 1) result.name += "," + pipeline.name;
      result.data = task.name;
      results.push_back(std::move(result));
    }
  }
  return results;
}

}  // namespace retort
