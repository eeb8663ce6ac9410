#include "trainer/cross_vocabulary.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace retort {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kMost = 1 - 1e-6;

/// The value of one span, and its derivative by log Q.
std::pair<double, double> bernoulli(double log_p, double log_q) {
  const double p = std::min(std::exp(log_p), kMost), q = std::min(std::exp(log_q), kMost);
  const double rest_p = 1 - p, rest_q = 1 - q;
  const double value = (p > 0 ? p * (log_p - std::min(log_q, 0.0)) : 0) + rest_p * std::log(rest_p / rest_q);
  return {value, (q - p) / rest_q};
}

/// Rows [begin, end) of whole spans [first, last): their logits become d value / d logits; returns the spans' sum.
double span_loss(const at::Tensor& logits, const at::Tensor& labels, const SpanTargets& targets, int64_t first,
                 int64_t last) {
  const at::Tensor index = labels.unsqueeze(1), lse = at::logsumexp(logits, 1, true);
  const at::Tensor log_q = (logits.gather(1, index) - lse).squeeze(1).to(at::kCPU, at::kDouble);
  logits.sub_(lse).exp_().scatter_add_(1, index, at::full_like(index, -1, logits.options()));  // q - 1 at the label
  const double* row = log_q.const_data_ptr<double>();
  const double* log_p = targets.log_p.const_data_ptr<double>();
  const int64_t begin = targets.offsets[static_cast<size_t>(first)];
  std::vector<double> factors(static_cast<size_t>(logits.size(0)));
  double sum = 0;
  for (int64_t s = first; s < last; ++s) {
    const int64_t from = targets.offsets[static_cast<size_t>(s)] - begin,
                  to = targets.offsets[static_cast<size_t>(s) + 1] - begin;
    double log_span = 0;
    for (int64_t i = from; i < to; ++i) log_span += row[i];
    const auto [value, slope] = bernoulli(log_p[s], log_span);
    sum += value;
    std::fill(factors.begin() + from, factors.begin() + to, -slope);  // d log Q / d logits is 1 at the label - q
  }
  logits.mul_(at::tensor(factors, at::kDouble).to(logits.options()).unsqueeze(1));
  return sum;
}

/// Calls each(begin, end, d loss / d logits, what the head's adapter keeps) for chunks of whole spans.
template <typename Each>
at::Tensor for_spans(const Linear& head, const at::Tensor& x, const at::Tensor& labels, const SpanTargets& targets,
                     int64_t chunk, bool training, const Each& each) {
  const auto spans = static_cast<int64_t>(targets.offsets.size()) - 1;
  double sum = 0;
  Kept kept;
  for (int64_t first = 0, last = 0; first < spans; first = last) {
    const int64_t begin = targets.offsets[static_cast<size_t>(first)];
    while (last < spans && (last == first || targets.offsets[static_cast<size_t>(last) + 1] - begin <= chunk)) ++last;
    const int64_t end = targets.offsets[static_cast<size_t>(last)];
    at::Tensor logits = at::empty({end - begin, head.out}, x.options());
    linear_forward(head, x.slice(0, begin, end), logits, training, kept);
    logits = logits.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    sum += span_loss(logits, labels.slice(0, begin, end), targets, first, last);
    each(begin, end, logits.to(x.scalar_type()), kept);
  }
  return at::full({}, sum, x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
}

/// As models/cross_entropy.cpp: a frozen head's gradient is known at once, an adapted head runs again in backward.
struct SpanDivergence : torch::autograd::Function<SpanDivergence> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& rows,
                            const at::Tensor& labels, const Linear* head, const SpanTargets* targets, int64_t chunk) {
    const at::Tensor x = hidden.index_select(0, rows);
    const at::Tensor kept = head->adapter ? x : at::empty_like(x);
    const at::Tensor loss = for_spans(*head, x, labels, *targets, chunk, true,
                                      [&](int64_t begin, int64_t end, const at::Tensor& dlogits, const Kept&) {
                                        if (!head->adapter)
                                          base_backward(*head, dlogits, kept.slice(0, begin, end), false);
                                      });
    ctx->save_for_backward({kept, rows, labels, targets->log_p, at::tensor(targets->offsets, at::kLong)});
    ctx->saved_data["head"] = reinterpret_cast<int64_t>(head);
    ctx->saved_data["chunk"] = chunk;
    ctx->saved_data["tokens"] = hidden.size(0);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &kept = saved[0], &rows = saved[1];
    const auto& head = *reinterpret_cast<const Linear*>(ctx->saved_data["head"].toInt());
    at::Tensor dx;
    if (head.adapter) {
      const auto* offset = saved[4].const_data_ptr<int64_t>();
      const SpanTargets targets{{}, {offset, offset + saved[4].numel()}, saved[3]};
      dx = at::empty_like(kept);
      for_spans(head, kept, saved[2], targets, ctx->saved_data["chunk"].toInt(), true,
                [&](int64_t begin, int64_t end, at::Tensor dlogits, const Kept& adapter_kept) {
                  dlogits.mul_(gradients[0]);
                  linear_backward(head, kept.slice(0, begin, end), dlogits, adapter_kept, dx.slice(0, begin, end));
                });
    } else {
      dx = kept * gradients[0];
    }
    // A position may be in one span only, but the same document may lie in a batch twice: rows differ then.
    dx = at::zeros({ctx->saved_data["tokens"].toInt(), dx.size(1)}, dx.options()).index_copy_(0, rows, dx);
    return {dx, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

std::string key(const std::string& name, const char* what) { return name.empty() ? what : name + "." + what; }

}  // namespace

at::Tensor linear_span_divergence(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                                  const SpanTargets& targets, int64_t chunk) {
  const at::Tensor rows = at::tensor(targets.rows, at::kLong).to(hidden.device());
  if (targets.rows.empty())
    return hidden.sum().mul(0).to(hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const at::Tensor at_rows = labels.to(hidden.device()).index_select(0, rows);
  if (at::GradMode::is_enabled() && hidden.requires_grad())
    return SpanDivergence::apply(hidden, rows, at_rows, &head, &targets, chunk);
  const at::NoGradGuard no_grad;
  return for_spans(head, hidden.index_select(0, rows), at_rows, targets, chunk, false,
                   [](int64_t, int64_t, const at::Tensor&, const Kept&) {});
}

ObjectivePart spans_part(SpanSource source, double weight, std::shared_ptr<ObjectiveState> state,
                         const std::string& name) {
  return [=](const Forwarded& student) {
    const SpanTargets targets = source(student.batch);
    const at::Tensor sum =
        linear_span_divergence(*student.model.linears().back(), student.hidden, student.batch.labels, targets);
    state->sums[key(name, "span_divergence")] += sum.item<double>();
    state->sums[key(name, "spans")] += static_cast<double>(targets.offsets.size() - 1);
    return sum * weight;
  };
}

ObjectivePart uld_part(RankedSource source, double weight, double temperature, std::shared_ptr<ObjectiveState> state,
                       const std::string& name) {
  return [=](const Forwarded& student) {
    const RankedTargets ranked = source(student.batch);
    if (ranked.targets.rows == 0) return student.hidden.sum().mul(0).to(at::kFloat);
    DivergenceOptions options;
    options.loss = &loss_kind("uld");
    options.temperature = temperature;
    options.kd_weight = weight;
    DivergenceRows rows;
    const at::Tensor sum = linear_divergence(*student.model.linears().back(), student.hidden, ranked.labels,
                                             ranked.targets, options, &rows);
    state->sums[key(name, "divergence")] += rows.divergence.sum().item<double>();
    state->sums[key(name, "aligned")] += static_cast<double>(ranked.targets.rows);
    return sum;
  };
}

}  // namespace retort
