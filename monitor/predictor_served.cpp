// Evaluators' questions answered by the file that ships, in llama.cpp.
#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>

#include "models/served.h"
#include "monitor/evaluate.h"
#include "monitor/targets.h"

namespace retort {
namespace {

std::string_view without_spaces_before(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
}

/// Whether an answer that begins with `text` can still be `expected` but for spaces at its ends.
bool may_become(std::string_view text, std::string_view expected) {
  text = without_spaces_before(text);
  expected = without_spaces_before(expected);
  size_t n = std::min(text.size(), expected.size());
  return text.substr(0, n) == expected.substr(0, n) && without_spaces_before(text.substr(n)).empty();
}

/// Where the first of `until` begins in the text; its size when there is none.
size_t end_of_answer(std::string_view text, const std::vector<std::string>& until) {
  size_t end = text.size();
  for (const std::string& stop : until)
    if (!stop.empty()) end = std::min(end, text.find(stop));
  return end;
}

void predict_served(ServedModel& model, const Tokenizer& tokenizer, std::span<const Question> questions,
                    const std::function<void(size_t, const Reply&)>& each) {
  struct Part {
    size_t question;
    Targets targets;
    int64_t choice = -1;  ///< -1: the trained tokens, or the greedy answer
  };
  std::vector<ServedRequest> requests;
  std::vector<Part> parts;
  std::vector<size_t> open;  // parts of each question that have no answer yet
  for (size_t i = 0; i < questions.size(); ++i) {
    const size_t before = parts.size();
    const auto& [row, needs] = questions[i];
    if (needs.targets) {
      Targets targets = trained_targets(row->example);
      requests.push_back({row->example.ids, targets.positions});
      parts.push_back({i, std::move(targets)});
    }
    for (size_t c = 0; needs.choices && c < row->answers.size(); ++c) {
      Targets targets = answer_targets(row->prompt, row->answers[c]);
      requests.push_back({joined(row->prompt, row->answers[c]), targets.positions});
      parts.push_back({i, std::move(targets), static_cast<int64_t>(c)});
    }
    if ((needs.match || needs.answer) && !row->prompt.empty()) {
      requests.push_back({row->prompt, {}, needs.max_tokens, [&tokenizer, row = row, whole = needs.answer](auto ids) {
                            const std::string text = tokenizer.decode(ids);
                            if (!row->until.empty() && end_of_answer(text, row->until) < text.size()) return false;
                            return whole || may_become(text, row->expected);
                          }});
      parts.push_back({i, {}});
    }
    open.push_back(parts.size() - before);
  }
  std::vector<Reply> replies(questions.size());
  size_t next = 0;
  auto close = [&](const Part& part) {  // replies leave in the order of the questions
    --open[part.question];
    for (; next < questions.size() && open[next] == 0; ++next) each(next, replies[next]);
  };
  model.run(
      requests,
      [&](size_t i, const at::Tensor& logits) {
        const Part& part = parts[i];
        Reply& reply = replies[part.question];
        std::vector<double> scores = log_probabilities(logits, part.targets.ids);
        if (part.choice < 0) {
          reply.targets = std::move(scores);
        } else {
          reply.choices.push_back(sum(scores));
        }
        close(part);
      },
      [&](size_t i, const Generated& generated) {
        Reply& reply = replies[parts[i].question];
        reply.generated = tokenizer.decode(generated.ids);
        reply.generated_tokens = static_cast<int64_t>(generated.ids.size());
        const size_t end = end_of_answer(reply.generated, questions[parts[i].question].row->until);
        reply.stopped = generated.stopped || end < reply.generated.size();
        reply.generated.resize(end);
        close(parts[i]);
      });
  for (; next < questions.size(); ++next) each(next, replies[next]);  // rows of which nothing could be asked
}

}  // namespace

Predictor predictor_of(ServedModel& model, const Tokenizer& tokenizer) {
  return [&model, &tokenizer](std::span<const Question> questions, const auto& each) {
    predict_served(model, tokenizer, questions, each);
  };
}

std::vector<Sample> samples(ServedModel& model, const Tokenizer& tokenizer, std::span<const EvaluationRow> rows,
                            size_t count, int64_t max_tokens) {
  std::vector<ServedRequest> requests;
  std::vector<Sample> result;
  for (const EvaluationRow& row : rows) {
    if (result.size() == count) break;
    if (row.prompt.empty()) continue;
    requests.push_back({row.prompt, {}, max_tokens});
    result.push_back({row.key, row.prompt_text, row.expected, "", false});
  }
  model.run(requests, {}, [&](size_t i, const Generated& generated) {
    result[i].generated = tokenizer.decode(generated.ids);
    result[i].stopped = generated.stopped;
  });
  return result;
}

}  // namespace retort
