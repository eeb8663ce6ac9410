#include "trainer/cross_vocabulary.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "models/cross_entropy.h"

namespace retort {
namespace {

constexpr double kMost = 1 - 1e-6;

/// The value of one span, and its derivative by log Q.
std::pair<double, double> bernoulli(double log_p, double log_q) {
  const double p = std::min(std::exp(log_p), kMost), q = std::min(std::exp(log_q), kMost);
  const double rest_p = 1 - p, rest_q = 1 - q;
  const double value = (p > 0 ? p * (log_p - std::min(log_q, 0.0)) : 0) + rest_p * std::log(rest_p / rest_q);
  return {value, (q - p) / rest_q};
}

/// The sum of spans whose rows begin at `begin`; their logits become d sum / d logits.
at::Tensor span_loss(int64_t begin, const at::Tensor& logits, const at::Tensor& labels, const SpanTargets& targets) {
  const at::Tensor index = labels.slice(0, begin, begin + logits.size(0)).unsqueeze(1);
  const at::Tensor lse = at::logsumexp(logits, 1, true);
  const at::Tensor log_q = (logits.gather(1, index) - lse).squeeze(1).to(at::kCPU, at::kDouble);
  logits.sub_(lse).exp_().scatter_add_(1, index, at::full_like(index, -1, logits.options()));  // q - 1 at the label
  const double* row = log_q.const_data_ptr<double>();
  const double* log_p = targets.log_p.const_data_ptr<double>();
  std::vector<double> factors(static_cast<size_t>(logits.size(0)));
  double sum = 0;
  const auto first = std::lower_bound(targets.offsets.begin(), targets.offsets.end(), begin);
  for (auto s = first; *s < begin + logits.size(0); ++s) {
    const int64_t from = *s - begin, to = *(s + 1) - begin;
    double log_span = 0;
    for (int64_t i = from; i < to; ++i) log_span += row[i];
    const auto [value, slope] = bernoulli(log_p[s - targets.offsets.begin()], log_span);
    sum += value;
    std::fill(factors.begin() + from, factors.begin() + to, -slope);  // d log Q / d logits is 1 at the label - q
  }
  logits.mul_(at::tensor(factors, at::kDouble).to(logits.options()).unsqueeze(1));
  return at::full({}, sum, logits.options().dtype(at::kDouble));
}

/// Where chunks of whole spans end: of at most `chunk` rows, but for a span that is longer.
std::vector<int64_t> ends_of_chunks(const SpanTargets& targets, int64_t chunk) {
  std::vector<int64_t> ends;
  int64_t begin = 0;
  for (size_t s = 1; s < targets.offsets.size(); ++s) {
    if (!ends.empty() && targets.offsets[s] - begin <= chunk) {
      ends.back() = targets.offsets[s];
    } else {
      begin = targets.offsets[s - 1];
      ends.push_back(targets.offsets[s]);
    }
  }
  return ends;
}

std::string key(const std::string& name, const char* what) { return name.empty() ? what : name + "." + what; }

}  // namespace

at::Tensor linear_span_divergence(const Linear& head, const at::Tensor& hidden, const at::Tensor& labels,
                                  const SpanTargets& targets, int64_t chunk) {
  const at::Tensor rows = at::tensor(targets.rows, at::kLong).to(hidden.device());
  const at::Tensor at_rows = labels.to(hidden.device()).index_select(0, rows);
  const LogitsLoss loss = [&](int64_t begin, const at::Tensor& logits) {
    return span_loss(begin, logits, at_rows, targets);
  };
  return linear_loss(head, hidden, rows, loss, ends_of_chunks(targets, chunk));
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
