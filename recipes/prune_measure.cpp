#include "recipes/prune_measure.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

namespace retort {
namespace {

constexpr int64_t kChunk = 128;  ///< tokens whose logits exist at a time

/// The documents of a window that the student can read, in its ids, and where their tokens are in the window.
struct Readable {
  Batch batch;
  at::Tensor positions;  ///< i64 [T]
};

Readable readable(const Batch& window, const std::vector<int64_t>& now) {
  Readable result;
  result.batch.offsets = {0};
  const at::Tensor all = window.ids.to(at::kCPU).contiguous();
  const int64_t* ids = all.const_data_ptr<int64_t>();
  std::vector<int64_t> kept, positions;
  for (size_t d = 0; d + 1 < window.offsets.size(); ++d) {
    const int64_t begin = window.offsets[d], end = window.offsets[d + 1];
    if (std::any_of(ids + begin, ids + end, [&](int64_t id) { return now[static_cast<size_t>(id)] < 0; })) continue;
    for (int64_t t = begin; t < end; ++t) {
      kept.push_back(now[static_cast<size_t>(ids[t])]);
      positions.push_back(t);
    }
    result.batch.offsets.push_back(static_cast<int64_t>(kept.size()));
  }
  result.batch.ids = at::tensor(kept, at::kLong).to(window.ids.device());
  result.positions = at::tensor(positions, at::kLong).to(window.ids.device());
  return result;
}

}  // namespace

RowLoss loss_on(CausalLM& model, const std::vector<at::Tensor>& hidden, const std::vector<Batch>& windows) {
  const at::NoGradGuard no_grad;
  RowLoss loss;
  for (size_t w = 0; w < windows.size(); ++w) {
    loss.nats += model.cross_entropy(hidden[w], windows[w].labels).item<double>();
    loss.tokens += windows[w].labels.ge(0).sum().item<int64_t>();
  }
  return loss;
}

std::vector<at::Tensor> hidden_states(CausalLM& model, const std::vector<Batch>& windows) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> hidden;
  for (const Batch& window : windows) hidden.push_back(model.hidden(window));
  return hidden;
}

Fidelity compare(CausalLM& teacher, const std::vector<at::Tensor>& hidden, CausalLM& student,
                 const std::vector<Batch>& windows, const std::vector<int64_t>& tokens) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> now(static_cast<size_t>(teacher.config().vocab), -1);
  for (size_t i = 0; i < tokens.size(); ++i) now[static_cast<size_t>(tokens[i])] = static_cast<int64_t>(i);
  const at::Tensor kept = tokens.empty() ? at::Tensor() : at::tensor(tokens, at::kLong).to(teacher.device());
  Fidelity result;
  double kl = 0, same = 0, lost = 0;
  for (size_t w = 0; w < windows.size(); ++w) {
    at::Tensor of_teacher = hidden[w];
    Batch batch = windows[w];
    if (!tokens.empty()) {
      Readable part = readable(windows[w], now);
      if (part.batch.tokens() == 0) continue;
      of_teacher = of_teacher.index_select(0, part.positions);
      batch = std::move(part.batch);
    }
    const at::Tensor of_student = student.hidden(batch);
    for (int64_t begin = 0; begin < batch.tokens(); begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, batch.tokens());
      at::Tensor p = teacher.logits(of_teacher.slice(0, begin, end));
      if (kept.defined()) {
        const at::Tensor all = p.logsumexp(1);
        p = p.index_select(1, kept);
        lost += (1 - (p.logsumexp(1) - all).exp()).clamp_min(0).sum().item<double>();
      }
      p = p.log_softmax(1);
      const at::Tensor q = student.logits(of_student.slice(0, begin, end)).log_softmax(1);
      same += p.argmax(1).eq(q.argmax(1)).sum().item<double>();
      kl += p.exp().mul_(p - q).sum(at::kDouble).item<double>();
    }
    result.tokens += batch.tokens();
  }
  const auto n = static_cast<double>(std::max<int64_t>(result.tokens, 1));
  result.kl = kl / n;
  result.top1 = same / n;
  result.lost = lost / n;
  return result;
}

double divergence(CausalLM& teacher, const std::vector<at::Tensor>& hidden, CausalLM& student,
                  const std::vector<Batch>& windows, double limit) {
  double sum = 0, all = 0;
  for (const Batch& window : windows) all += static_cast<double>(window.tokens());
  for (size_t w = 0; w < windows.size() && sum / all <= limit; ++w) {
    const Fidelity one = compare(teacher, {hidden[w]}, student, {windows[w]});
    sum += one.kl * static_cast<double>(one.tokens);
  }
  return sum / all;
}

std::vector<at::Tensor> channel_contributions(const Checkpoint& checkpoint, CausalLM& model,
                                              const std::vector<Batch>& windows) {
  std::map<std::string, at::Tensor> squares;
  model.observe([&](const std::string& name, const at::Tensor& x) {
    if (!name.ends_with(".mlp.down_proj")) return;
    const at::Tensor sum = x.to(at::kFloat).square().sum(0).to(at::kCPU);
    at::Tensor& total = squares[name];
    total = total.defined() ? total + sum : sum;
  });
  const at::NoGradGuard no_grad;
  int64_t tokens = 0;
  for (const Batch& window : windows) {
    model.hidden(window);
    tokens += window.tokens();
  }
  model.observe({});
  std::vector<at::Tensor> scores;
  for (int64_t layer = 0; layer < checkpoint.config().layers; ++layer) {
    const std::string name = fmt::format("model.layers.{}.mlp.down_proj", layer);
    const at::Tensor columns = checkpoint.tensor(name + ".weight").dequantize(at::kFloat).square().sum(0);
    scores.push_back((squares.at(name) / static_cast<double>(tokens) * columns).sqrt());
  }
  return scores;
}

}  // namespace retort
