// The gate on predictions: both models read the same held-out tokens.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <llama.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "export/gate.h"
#include "export/types.h"

namespace retort {
namespace {

/// Positions of a row that are compared, and the next token at each.
struct Positions {
  size_t row;
  std::vector<int64_t> at;
  int64_t answer_end = -1;  ///< index in `at` of the position that predicts the end of the turn; -1: none
};

/// What was seen at each position.
struct Seen {
  std::vector<double> kl;
  int64_t agreed = 0;
  double trained_loss = 0, shipped_loss = 0;
  int64_t predicted = 0;  ///< positions that have a next token
};

/// Positions from the end of what all rows begin with, in rows of at most max_tokens tokens together.
std::vector<Positions> choose_positions(std::span<const GateRow> rows, const Tokenizer& tokenizer, int64_t max_tokens) {
  size_t shared = rows[0].example.ids.size() - 1;
  for (const GateRow& row : rows) {
    const auto& ids = row.example.ids;
    const auto end = ids.begin() + static_cast<int64_t>(std::min(shared, ids.size() - 1));
    shared = static_cast<size_t>(std::mismatch(ids.begin(), end, rows[0].example.ids.begin()).first - ids.begin());
  }
  if (rows.size() == 1) shared = 0;
  std::vector<Positions> chosen;
  int64_t tokens = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const Example& example = rows[r].example;
    tokens += static_cast<int64_t>(example.ids.size() - shared);
    if (r > 0 && tokens > max_tokens) break;
    Positions positions{r, {}, -1};
    for (size_t t = shared; t < example.ids.size(); ++t) positions.at.push_back(static_cast<int64_t>(t));
    for (size_t t = example.ids.size(); t-- > shared + 1;) {
      if (example.trained[t] && tokenizer.ends_generation(example.ids[t])) {
        positions.answer_end = static_cast<int64_t>(t - 1 - shared);
        break;
      }
    }
    chosen.push_back(std::move(positions));
  }
  return chosen;
}

void compare(const at::Tensor& trained, const at::Tensor& shipped, const std::vector<int64_t>& next, Seen& seen) {
  const at::Tensor p = at::log_softmax(trained.to(at::kDouble), 1);
  const at::Tensor q = at::log_softmax(shipped.to(at::kDouble), 1);
  const at::Tensor kl = (p.exp() * (p - q)).sum(1);
  seen.kl.insert(seen.kl.end(), kl.const_data_ptr<double>(), kl.const_data_ptr<double>() + kl.numel());
  seen.agreed += (p.argmax(1) == q.argmax(1)).sum().item<int64_t>();
  if (next.empty()) return;
  const at::Tensor index = at::tensor(next, at::kLong).unsqueeze(1);
  const auto count = static_cast<int64_t>(next.size());
  seen.trained_loss -= p.narrow(0, 0, count).gather(1, index).sum().item<double>();
  seen.shipped_loss -= q.narrow(0, 0, count).gather(1, index).sum().item<double>();
  seen.predicted += count;
}

/// Logits f32 [n, V] of each row's positions under the trainer's model, for rows [first, last) of `chosen`.
std::vector<at::Tensor> trained_logits(CausalLM& model, std::span<const GateRow> rows,
                                       std::span<const Positions> chosen) {
  std::vector<int64_t> ids, at;
  Batch batch;
  batch.offsets = {0};
  for (const Positions& positions : chosen) {
    const auto& row = rows[positions.row].example.ids;
    for (int64_t t : positions.at) at.push_back(batch.offsets.back() + t);
    ids.insert(ids.end(), row.begin(), row.end());
    batch.offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.ids = at::tensor(ids, at::kLong).to(model.device());
  batch.labels = at::full_like(batch.ids, -1);
  at::Tensor hidden = model.hidden(batch).index_select(0, at::tensor(at, at::kLong).to(model.device()));
  std::vector<at::Tensor> result;
  int64_t row = 0;
  for (const Positions& positions : chosen) {
    const auto n = static_cast<int64_t>(positions.at.size());
    result.push_back(model.logits(hidden.narrow(0, row, n)).to(at::kCPU, at::kFloat));
    row += n;
  }
  return result;
}

}  // namespace

void compare_predictions(const GateReference& reference, const GateFile& file, std::span<const GateRow> rows,
                         std::optional<double> max_kl, std::optional<double> min_top1, int64_t max_tokens,
                         GateReport& report) {
  constexpr size_t kGroupTokens = 1024;  // both models' logits of so many tokens are in memory at once
  at::NoGradGuard no_grad;
  const auto shipped = ServedModel::open(file.path, {.threads = file.threads, .adapter = file.adapter, .exact = true});
  const llama_vocab* vocabulary = llama_model_get_vocab(shipped->model());
  if (shipped->vocab() != reference.trained.config().vocab) {
    report.reasons.push_back(fmt::format("predictions: the file has {} tokens, the trained model {}", shipped->vocab(),
                                         reference.trained.config().vocab));
    return;
  }
  const std::vector<Positions> chosen = choose_positions(rows, reference.tokenizer, max_tokens);
  Seen seen;
  for (size_t first = 0, last = 0; first < chosen.size(); first = last) {
    size_t tokens = 0;
    while (last < chosen.size() && (last == first || tokens + rows[last].example.ids.size() <= kGroupTokens)) {
      tokens += rows[last++].example.ids.size();
    }
    const auto group = std::span(chosen).subspan(first, last - first);
    const std::vector<at::Tensor> expected = trained_logits(reference.trained, rows, group);
    std::vector<ServedRequest> requests;
    for (const Positions& positions : group) requests.push_back({rows[positions.row].example.ids, positions.at});
    shipped->run(requests, [&](size_t i, const at::Tensor& found) {
      const Positions& positions = group[i];
      const auto& ids = rows[positions.row].example.ids;
      compare(expected[i], found, {ids.begin() + positions.at.front() + 1, ids.end()}, seen);
      if (positions.answer_end < 0) return;
      auto stops = [&](const at::Tensor& logits, const auto& ends) {
        return ends(static_cast<int32_t>(logits[positions.answer_end].argmax().item<int64_t>()));
      };
      if (!stops(expected[i], [&](int32_t id) { return reference.tokenizer.ends_generation(id); })) return;
      ++report.stops_trained;
      report.stops += stops(found, [&](int32_t id) { return llama_vocab_is_eog(vocabulary, id); });
    });
  }
  const auto n = static_cast<int64_t>(seen.kl.size());
  report.rows = static_cast<int64_t>(chosen.size());
  report.positions = n;
  for (double kl : seen.kl) report.kl_mean += kl / static_cast<double>(n);
  std::vector<double> sorted = seen.kl;
  const auto p99 =
      sorted.begin() +
      static_cast<int64_t>(std::min<double>(std::ceil(0.99 * static_cast<double>(n)), static_cast<double>(n)) - 1);
  std::nth_element(sorted.begin(), p99, sorted.end());
  report.kl_p99 = *p99;
  report.top1 = static_cast<double>(seen.agreed) / static_cast<double>(n);
  const auto predicted = static_cast<double>(std::max<int64_t>(seen.predicted, 1));
  report.perplexity_trained = std::exp(seen.trained_loss / predicted);
  report.perplexity_shipped = std::exp(seen.shipped_loss / predicted);

  GateLimits& limits = report.limits = gate_limits(file.type, max_kl, min_top1);
  // A share of few positions scatters: the limit by type is for many. A recipe's own number is taken as it is.
  if (!min_top1) limits.min_top1 -= 3 * std::sqrt(limits.min_top1 * (1 - limits.min_top1) / static_cast<double>(n));
  // Each comparison is written so that a NaN is refused.
  auto require = [&](bool holds, const char* what, double found, const char* relation, double allowed) {
    if (!holds)
      report.reasons.push_back(
          fmt::format("{}: {:.4g}, allowed for {} is {} {:.4g}", what, found, file.type, relation, allowed));
  };
  require(report.kl_mean <= limits.max_kl, "mean KL divergence", report.kl_mean, "at most", limits.max_kl);
  require(report.kl_p99 <= limits.max_kl_p99, "99th percentile of the KL divergence", report.kl_p99, "at most",
          limits.max_kl_p99);
  require(report.top1 >= limits.min_top1, "share of equal most likely tokens", report.top1, "at least",
          limits.min_top1);
  const double log_ratio = std::log(report.perplexity_shipped / report.perplexity_trained);
  require(std::abs(log_ratio) <= limits.max_log_perplexity, "log of the perplexities' ratio", log_ratio, "within",
          limits.max_log_perplexity);
  const auto may_miss = std::ceil((1 - limits.min_top1) * static_cast<double>(report.stops_trained));
  require(static_cast<double>(report.stops_trained - report.stops) <= may_miss,
          "rows in which only the trained model ends its turn",
          static_cast<double>(report.stops_trained - report.stops), "at most", may_miss);
}

}  // namespace retort
