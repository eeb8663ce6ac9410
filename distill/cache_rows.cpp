#include "distill/cache_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/rng.h"
#include "models/simd.h"

namespace retort {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr int64_t block = 64;  // values whose maximum is kept, to find the greatest of all without sorting them

/// x[i] = logits[order[i]]; returns nothing else, so that the compiler gathers.
RETORT_SIMD void gather(const float* logits, const int32_t* order, float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = logits[order[i]];
}

RETORT_SIMD void block_maxima(const float* x, int64_t n, float* maxima) {
  for (int64_t b = 0; b * block < n; ++b) maxima[b] = simd_max(x + b * block, std::min(block, n - b * block));
}

/// Sum of exp((x - shift) * scale); a NaN stays.
RETORT_SIMD double exp_sum(const float* x, int64_t n, float shift, float scale) {
  float lane[simd_lanes] = {};
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) lane[l] += simd_exp((x[i + l] - shift) * scale);
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(simd_exp((x[i] - shift) * scale));
  for (const float value : lane) sum += static_cast<double>(value);
  return sum;
}

/// Sum of exp(l) l over l = x - shift; what is below e^-87 counts as that.
RETORT_SIMD double exp_product_sum(const float* x, int64_t n, float shift) {
  constexpr float lowest = -87;
  float lane[simd_lanes] = {};
  int64_t i = 0;
  for (; i + simd_lanes <= n; i += simd_lanes)
    for (int64_t l = 0; l < simd_lanes; ++l) {
      const float value = x[i + l] - shift > lowest ? x[i + l] - shift : lowest;
      lane[l] += simd_exp(value) * value;
    }
  double sum = 0;
  for (; i < n; ++i) {
    const float value = x[i] - shift > lowest ? x[i] - shift : lowest;
    sum += static_cast<double>(simd_exp(value) * value);
  }
  for (const float value : lane) sum += static_cast<double>(value);
  return sum;
}

/// KL of masses from what is known of them, logs of both, as distributions.
class CodingLoss {
 public:
  void add(double exact, double known) {
    const double mass = std::exp(exact);
    exact_ += mass;
    known_ += std::exp(known);
    if (mass > 0) product_ += mass * (exact - known);
  }
  double nats() const { return std::max(0.0, product_ / exact_ + std::log(known_ / exact_)); }

 private:
  double exact_ = 0, known_ = 0, product_ = 0;
};

/// Places of the `k` greatest values, the greatest first; of equal ones the first place.
std::vector<int64_t> greatest(const float* x, int64_t n, int64_t k, std::vector<float>& maxima) {
  k = std::min(k, n);
  maxima.resize((n + block - 1) / block);
  block_maxima(x, n, maxima.data());
  float least = minus_infinity;  // at least k values are not below the k-th greatest maximum
  if (static_cast<int64_t>(maxima.size()) > k) {
    std::vector<float> sorted = maxima;
    std::nth_element(sorted.begin(), sorted.begin() + k - 1, sorted.end(), std::greater<>());
    least = sorted[k - 1];
  }
  std::vector<int64_t> places;
  for (size_t b = 0; b < maxima.size(); ++b) {
    if (maxima[b] < least) continue;
    for (int64_t i = int64_t(b) * block, end = std::min(n, i + block); i < end; ++i)
      if (x[i] >= least) places.push_back(i);
  }
  k = std::min<int64_t>(k, int64_t(places.size()));
  std::partial_sort(places.begin(), places.begin() + k, places.end(),
                    [&](int64_t a, int64_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
  places.resize(k);
  return places;
}

uint8_t steps_below(float value, float top, float step, int most) {
  const float steps = std::round((top - value) / step);
  return static_cast<uint8_t>(std::clamp(steps, 0.0f, static_cast<float>(most)));
}

}  // namespace

float mass_step(double temperature) {
  return static_cast<float>(std::max(0.25 / std::max(1.0, temperature), 1.0 / 16));
}

float mass_top(double temperature, int64_t vocab) {
  return static_cast<float>(std::max(0.0, (1 - 1 / temperature) * std::log(static_cast<double>(vocab))));
}

struct RowMaker::Row {
  uint8_t *masses, label_log_p;
  int32_t* samples;
  std::vector<int32_t> ids;
  std::vector<uint8_t> log_p;
  bool sound;
  float lse;
  double coding_nats, hidden_nats;
};

RowMaker::RowMaker(const Cells& cells, const CacheOptions& options)
    : options_(options), vocab_(cells.of.size(0)), order_(vocab_), cell_begins_(cells.count + 1) {
  const auto* of = cells.of.const_data_ptr<uint8_t>();
  for (int64_t token = 0; token < vocab_; ++token) ++cell_begins_[of[token] + 1];
  for (int64_t c = 0; c < cells.count; ++c) cell_begins_[c + 1] += cell_begins_[c];
  std::vector<int64_t> next = cell_begins_;
  for (int64_t token = 0; token < vocab_; ++token) order_[next[of[token]]++] = static_cast<int32_t>(token);
}

void RowMaker::make(const float* logits, int64_t width, int32_t label, uint64_t draws, float* x, Row& row) const {
  if (width >= vocab_)
    gather(logits, order_.data(), x, vocab_);
  else
    for (int64_t i = 0; i < vocab_; ++i) x[i] = order_[i] < width ? logits[order_[i]] : minus_infinity;
  static thread_local std::vector<float> maxima;
  const std::vector<int64_t> top = greatest(x, vocab_, options_.top_k, maxima);
  row.sound = !top.empty();
  if (!row.sound) return;
  const float greatest_logit = x[top[0]];
  row.lse = greatest_logit + static_cast<float>(std::log(exp_sum(x, vocab_, greatest_logit, 1)));
  row.sound = std::isfinite(row.lse);
  if (!row.sound) return;
  const auto log_p_byte = [&](float logit) { return steps_below(logit - row.lse, 0, log_p_step, 255); };
  const float label_logit = label < width ? logits[label] : minus_infinity;
  row.label_log_p = log_p_byte(label_logit);
  const float least = row.lse + static_cast<float>(std::log(options_.min_probability));
  CodingLoss coding;
  for (size_t i = 0; i < top.size() && (i == 0 || x[top[i]] >= least); ++i) {
    row.ids.push_back(order_[top[i]]);
    row.log_p.push_back(log_p_byte(x[top[i]]));
    coding.add((x[top[i]] - row.lse) / options_.temperatures[0],
               -log_p_step * row.log_p.back() / options_.temperatures[0]);
    x[top[i]] = minus_infinity;
  }
  const auto cells = static_cast<int64_t>(cell_begins_.size()) - 1;
  const auto in_cell = [&](int64_t c) { return x + cell_begins_[c]; };
  const auto tokens_of = [&](int64_t c) { return cell_begins_[c + 1] - cell_begins_[c]; };
  std::vector<double> tail(cells);  // at temperature 1
  for (int64_t c = 0; c < cells; ++c) tail[c] = exp_sum(in_cell(c), tokens_of(c), row.lse, 1);
  uint8_t* byte = row.masses;
  for (const double& temperature : options_.temperatures) {
    const auto scale = static_cast<float>(1 / temperature);
    for (int64_t c = 0; c < cells; ++c, ++byte) {
      // exp() never gives less than e^-87, so an empty cell has to be told from one that hardly has any mass.
      const double sum = temperature == 1 ? tail[c] : exp_sum(in_cell(c), tokens_of(c), row.lse, scale);
      const bool some =
          sum > 1e-30 || std::any_of(in_cell(c), in_cell(c) + tokens_of(c), [](float l) { return l > minus_infinity; });
      *byte = some ? steps_below(static_cast<float>(std::log(sum)), mass_top(temperature, vocab_),
                                 mass_step(temperature), no_mass - 1)
                   : no_mass;
      if (some && &temperature == options_.temperatures.data())
        coding.add(std::log(sum), mass_top(temperature, vocab_) - mass_step(temperature) * float(*byte));
    }
  }
  row.coding_nats = coding.nats();
  row.hidden_nats = -exp_product_sum(x, vocab_, row.lse);
  for (double mass : tail)
    if (mass > 0) row.hidden_nats += mass * std::log(mass);
  row.hidden_nats = std::max(0.0, row.hidden_nats);
  if (options_.tail_samples == 0) return;
  double all = 0;
  for (double mass : tail) all += mass;
  // Systematic sampling: one number shifts an even grid over the cells' masses in order, so that every token is drawn
  // as often as its mass says and draws spread over the cells, which scatters less than draws on their own do.
  const double shift = Rng(draws).uniform();
  for (int64_t s = 0; s < options_.tail_samples; ++s) {
    double left = (double(s) + shift) / double(options_.tail_samples) * all;
    int64_t c = 0;
    while (c + 1 < cells && left >= tail[c]) left -= tail[c++];
    int64_t i = cell_begins_[c], last = -1;
    for (; i < cell_begins_[c + 1] && left >= 0; ++i) {
      if (x[i] == minus_infinity) continue;
      left -= static_cast<double>(simd_exp(x[i] - row.lse));
      last = i;
    }
    row.samples[s] = last < 0 ? row.ids[0] : order_[last];
  }
}

CacheRows RowMaker::rows(const at::Tensor& logits, std::span<const int32_t> ids, std::span<const int64_t> positions,
                         uint64_t draws) const {
  const int64_t n = logits.size(0), width = logits.size(1);
  const auto masses = static_cast<int64_t>(options_.temperatures.size() * (cell_begins_.size() - 1));
  if (n != static_cast<int64_t>(positions.size()))
    fail(Exit::internal, "a teacher gave {} rows of logits for {} positions", n, positions.size());
  const at::Tensor contiguous = logits.contiguous();
  const auto* data = contiguous.const_data_ptr<float>();
  CacheRows rows;
  rows.positions.assign(positions.begin(), positions.end());
  rows.masses.resize(n * masses);
  rows.samples.resize(n * options_.tail_samples);
  std::vector<Row> made(n);
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer(vocab_);
    for (int64_t r = begin; r < end; ++r) {
      made[r].masses = rows.masses.data() + r * masses;
      made[r].samples = rows.samples.data() + r * options_.tail_samples;
      make(data + r * width, width, ids[positions[r] + 1], draws + static_cast<uint64_t>(positions[r]), buffer.data(),
           made[r]);
    }
  });
  for (int64_t r = 0; r < n; ++r) {
    if (!made[r].sound)
      fail(Exit::bad_input, "the teacher's logits after position {} are NaN or infinite", positions[r]);
    rows.coding_nats += made[r].coding_nats;
    rows.hidden_nats += made[r].hidden_nats;
    rows.counts.push_back(static_cast<uint8_t>(made[r].ids.size()));
    rows.label_log_p.push_back(made[r].label_log_p);
    rows.ids.insert(rows.ids.end(), made[r].ids.begin(), made[r].ids.end());
    rows.log_p.insert(rows.log_p.end(), made[r].log_p.begin(), made[r].log_p.end());
  }
  if (options_.full) {
    at::Tensor full = contiguous.slice(1, 0, std::min(width, vocab_));
    std::vector<float> lse;
    for (const Row& row : made) lse.push_back(row.lse);
    full = (full - at::tensor(lse).unsqueeze(1)).to(at::kHalf);
    rows.full = at::full({n, vocab_}, minus_infinity, at::kHalf);
    rows.full.slice(1, 0, full.size(1)).copy_(full);
  }
  return rows;
}

}  // namespace retort
