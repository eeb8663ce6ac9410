// Evaluators' questions answered by the trainer's model, whose documents never share a beginning.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "core/error.h"
#include "models/causal_lm.h"
#include "monitor/evaluate.h"
#include "monitor/targets.h"

namespace retort {
namespace {

struct Document {
  size_t question;
  std::vector<int32_t> ids;
  Targets targets;
};

/// Logits f32 [n, V] of the trainer's model for each document's n targets, a packed batch at a time.
void trained_logits(CausalLM& model, const std::vector<Document>& documents,
                    const std::function<void(size_t, const at::Tensor&)>& each) {
  constexpr size_t kBatchTokens = 1024;
  at::NoGradGuard no_grad;
  for (size_t first = 0, last = 0; first < documents.size(); first = last) {
    std::vector<int64_t> ids, rows;
    Batch batch;
    batch.offsets = {0};
    while (last < documents.size() && (last == first || ids.size() + documents[last].ids.size() <= kBatchTokens)) {
      for (int64_t position : documents[last].targets.positions) rows.push_back(batch.offsets.back() + position);
      ids.insert(ids.end(), documents[last].ids.begin(), documents[last].ids.end());
      batch.offsets.push_back(static_cast<int64_t>(ids.size()));
      ++last;
    }
    batch.ids = at::tensor(ids, at::kLong).to(model.device());
    batch.labels = at::full_like(batch.ids, -1);
    at::Tensor hidden = model.hidden(batch).index_select(0, at::tensor(rows, at::kLong).to(model.device()));
    at::Tensor logits = model.logits(hidden).cpu().to(at::kFloat);
    int64_t row = 0;
    for (size_t d = first; d < last; ++d) {
      const auto n = static_cast<int64_t>(documents[d].targets.ids.size());
      each(d, logits.narrow(0, row, n));
      row += n;
    }
  }
}

/// The expected answer when each of its tokens is the most likely one, else the tokens up to the first that is not.
void teacher_forced(const at::Tensor& logits, const std::vector<int64_t>& expected, const Tokenizer& tokenizer,
                    Reply& reply) {
  at::Tensor best = logits.argmax(1);
  std::vector<int32_t> ids;
  for (size_t t = 0; t < expected.size(); ++t) {
    const auto id = static_cast<int32_t>(best[static_cast<int64_t>(t)].item<int64_t>());
    reply.stopped = tokenizer.ends_generation(id);
    if (reply.stopped) break;
    ids.push_back(id);
    if (id != expected[t]) break;
  }
  reply.generated = tokenizer.decode(ids);
}

/// The choice to compute next, by branch and bound: prompts are not shared here, so only choices whose first token is
/// more likely than the best whole answer so far are computed, or every one when that is asked for. `totals` holds
/// bounds where `exact` is false.
std::optional<size_t> may_win(const std::vector<double>& totals, const std::vector<bool>& exact, bool every_choice) {
  double best = -std::numeric_limits<double>::infinity();
  for (size_t c = 0; c < exact.size(); ++c) {
    if (exact[c]) best = std::max(best, totals[c]);
  }
  std::optional<size_t> candidate;
  for (size_t c = 0; c < exact.size(); ++c) {
    if (exact[c] || (totals[c] < best && !every_choice)) continue;
    if (!candidate || totals[c] > totals[*candidate]) candidate = c;
  }
  return candidate;
}

/// What the first document of a row tells: the trained tokens, the greedy answer, a bound for every choice.
void read_row(const Question& question, const Targets& targets, const at::Tensor& logits, const Tokenizer& tokenizer,
              Reply& reply, std::vector<bool>& exact) {
  const EvaluationRow& row = *question.row;
  std::vector<double> scores = log_probabilities(logits, targets.ids);
  if (question.needs.targets) reply.targets = scores;
  if (row.prompt.empty()) return;
  const auto at_answer =
      std::lower_bound(targets.positions.begin(), targets.positions.end(), static_cast<int64_t>(row.prompt.size()) - 1);
  const int64_t begin = at_answer - targets.positions.begin();
  const std::vector<int64_t> answer(targets.ids.begin() + begin, targets.ids.end());
  if (answer.empty()) return;
  if (question.needs.match) teacher_forced(logits.slice(0, begin), answer, tokenizer, reply);
  if (!question.needs.choices) return;
  at::Tensor first = at::log_softmax(logits[begin], 0);
  for (size_t c = 0; c < row.answers.size(); ++c) {
    const std::vector<int32_t>& choice = row.answers[c];
    exact[c] = std::equal(choice.begin(), choice.end(), answer.begin(), answer.end());
    reply.choices[c] = exact[c] ? sum({scores.begin() + begin, scores.end()}) : first[choice.front()].item<double>();
  }
}

void predict_trained(CausalLM& model, const Tokenizer& tokenizer, std::span<const Question> questions,
                     const std::function<void(size_t, const Reply&)>& each) {
  constexpr size_t kGroup = 64;  // rows in flight
  for (size_t first = 0; first < questions.size(); first += kGroup) {
    const auto group = questions.subspan(first, std::min(kGroup, questions.size() - first));
    std::vector<Reply> replies(group.size());
    std::vector<std::vector<bool>> exact(group.size());
    std::vector<Document> documents;
    for (size_t i = 0; i < group.size(); ++i) {
      const EvaluationRow& row = *group[i].row;
      if (group[i].needs.choices) {
        replies[i].choices.assign(row.answers.size(), 0.0);
        exact[i].assign(row.answers.size(), false);
      }
      require_prompt(group[i]);
      documents.push_back({i, row.example.ids, trained_targets(row.example)});
    }
    trained_logits(model, documents, [&](size_t d, const at::Tensor& logits) {
      read_row(group[d], documents[d].targets, logits, tokenizer, replies[d], exact[d]);
    });
    for (;;) {
      std::vector<Document> round;
      std::vector<size_t> choices;
      for (size_t i = 0; i < group.size(); ++i) {
        const std::optional<size_t> choice = may_win(replies[i].choices, exact[i], group[i].needs.every_choice);
        if (!choice) continue;
        const EvaluationRow& row = *group[i].row;
        exact[i][*choice] = true;
        choices.push_back(*choice);
        round.push_back(
            {i, joined(row.prompt, row.answers[*choice]), answer_targets(row.prompt, row.answers[*choice])});
      }
      if (round.empty()) break;
      trained_logits(model, round, [&](size_t d, const at::Tensor& logits) {
        replies[round[d].question].choices[choices[d]] = sum(log_probabilities(logits, round[d].targets.ids));
      });
    }
    for (size_t i = 0; i < group.size(); ++i) each(first + i, replies[i]);
  }
}

}  // namespace

Predictor predictor_of(CausalLM& model, const Tokenizer& tokenizer) {
  return [&model, &tokenizer](std::span<const Question> questions, const auto& each) {
    predict_trained(model, tokenizer, questions, each);
  };
}

}  // namespace retort
