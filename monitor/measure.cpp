#include "monitor/measure.h"

#include <ATen/ATen.h>
#include <llama.h>

#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/schema.h"
#include "core/signals.h"
#include "monitor/canary.h"
#include "monitor/measure_cache.h"
#include "monitor/targets.h"

namespace retort {
namespace {

/// Rows between two writes of the cache: what an interrupted check keeps.
constexpr size_t kRowsAtOnce = 64;

std::map<std::string, const SignalKind*> chosen_signals(const std::vector<std::string>& names) {
  if (names.empty()) return signal_kinds();
  std::map<std::string, const SignalKind*> chosen;
  for (const std::string& name : names) {
    const auto it = signal_kinds().find(name);
    if (it == signal_kinds().end()) {
      std::vector<std::string> allowed;
      for (const auto& [known, kind] : signal_kinds()) allowed.push_back(known);
      fail(Exit::usage, "drift.signals: {}", not_among(name, allowed));
    }
    chosen.insert(*it);
  }
  return chosen;
}

}  // namespace

std::string keyed_hash(const std::string& key, const std::string& text, size_t bytes) {
  std::string hex;
  for (char c : hmac_sha256(key, text).substr(0, bytes)) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return hex;
}

std::string key_id(const std::string& key) { return keyed_hash(key, "which key", 8); }

Measurer::Measurer(std::filesystem::path model, MeasureOptions options)
    : path_(std::move(model)),
      options_(std::move(options)),
      model_sha256_(sha256_file(path_)),
      tokenizer_(Tokenizer::open(path_)),
      signals_(chosen_signals(options_.signals)),
      token_hash_(options_.key) {}

Measurer::~Measurer() = default;

ServedModel& Measurer::model() {
  if (!model_) model_ = ServedModel::open(path_, {.threads = options_.threads, .exact = true});
  return *model_;
}

double Measurer::gamma() {
  bool vectors = false;
  for (const auto& [name, kind] : signals_) vectors |= kind->vector != nullptr;
  if (options_.gamma > 0 || !vectors) return options_.gamma;
  std::vector<std::vector<int32_t>> documents;
  for (const std::string& text : canary_texts()) documents.push_back(tokenizer_->encode(text, false, true));
  std::vector<double> states;
  model().read(documents, [&](size_t, const at::Tensor&, const at::Tensor& hidden) {
    const at::Tensor mean = hidden.to(at::kDouble).mean(0).contiguous();
    states.insert(states.end(), mean.data_ptr<double>(), mean.data_ptr<double>() + mean.numel());
  });
  const double gamma = median_gamma(states, states.size() / documents.size());
  return options_.gamma = std::exp2(std::round(2 * std::log2(gamma)) / 2);
}

uint64_t Measurer::feature_seed() const {
  uint64_t seed = 0;
  for (char c : hmac_sha256(options_.key, "random features").substr(0, 7)) seed = seed << 8 | static_cast<uint8_t>(c);
  return seed;
}

int64_t Measurer::dimensions() { return llama_model_n_embd_out(model().model()); }

RowMeasure Measurer::measured(const SignalInput& input) {
  RowMeasure measure;
  for (const auto& [name, kind] : signals_) {
    if (kind->number) {
      if (const auto value = kind->number(input)) measure.numbers[name] = *value;
    } else if (kind->tokens) {
      measure.counts[name] = token_hash_.counts(kind->tokens(input));
    } else {
      const std::vector<float> x = kind->vector(input);
      if (!features_) {
        features_ = std::make_unique<RandomFeatures>(x.size(), gamma(), kFrequencies, feature_seed());
      }
      std::vector<double> sum(2 * kFrequencies);
      features_->add(std::vector<double>(x.begin(), x.end()), sum);
      std::vector<int32_t>& features = measure.features[name];
      for (double value : sum) features.push_back(static_cast<int32_t>(std::lround(value / kFeatureUnit)));
    }
  }
  return measure;
}

std::vector<RowMeasure> Measurer::measure(std::span<const TrafficRow> rows,
                                          const std::function<void(size_t, size_t)>& progress) {
  if (options_.cache && !cache_) {
    std::string settings =
        fmt::format("1 {} {} {} {} {}", model_sha256_, options_.max_tokens, gamma(), kFrequencies, TokenHash::kBuckets);
    for (const auto& [name, kind] : signals_) settings += " " + name;
    cache_ = std::make_unique<MeasureCache>(cache_folder() / "drift" / (keyed_hash(options_.key, settings) + ".rows"),
                                            options_.key);
  }
  std::vector<RowMeasure> measures(rows.size());
  std::vector<size_t> open;
  std::vector<std::string> keys(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (cache_) {
      keys[i] = cache_->row_key(rows[i]);
      if (auto known = cache_->find(keys[i])) {
        measures[i] = std::move(*known);
        continue;
      }
    }
    open.push_back(i);
  }
  bool asks = false;
  for (const auto& [name, kind] : signals_) asks |= kind->asks_model;
  size_t done = rows.size() - open.size();
  for (size_t first = 0; first < open.size(); first += kRowsAtOnce) {
    if (stop_signal())
      fail(Exit::retry, "stopped by a signal after {} of {} rows; the next call goes on from there", done, rows.size());
    const size_t last = std::min(open.size(), first + kRowsAtOnce);
    std::vector<std::vector<int32_t>> documents;
    for (size_t i = first; i < last; ++i) {
      const TrafficRow& row = rows[open[i]];
      documents.push_back(tokenizer_->encode(row.text, false, true));
      if (documents.back().empty()) fail(Exit::bad_input, "{}: the text has no tokens", row.place);
      const auto most = static_cast<size_t>(options_.max_tokens);
      if (documents.back().size() > most) documents.back().resize(most);
    }
    auto take = [&](size_t d, int64_t bytes, double log_p, std::span<const float> state) {
      const size_t i = open[first + d];
      measures[i] = measured({rows[i], *tokenizer_, documents[d], bytes, log_p, state});
      if (cache_) cache_->add(keys[i], measures[i]);
      if (progress) progress(++done, rows.size());
    };
    if (!asks) {
      for (size_t d = 0; d < documents.size(); ++d) take(d, 0, 0, {});
    } else {
      model().read(documents, [&](size_t d, const at::Tensor& logits, const at::Tensor& hidden) {
        const std::span<const int32_t> ids = documents[d];
        const std::vector<int64_t> next(ids.begin() + 1, ids.end());
        const double log_p =
            next.empty() ? 0 : sum(log_probabilities(logits.narrow(0, 0, static_cast<int64_t>(next.size())), next));
        const at::Tensor mean = hidden.mean(0).contiguous();
        take(d, static_cast<int64_t>(tokenizer_->decode(ids.subspan(1)).size()), log_p,
             {mean.const_data_ptr<float>(), static_cast<size_t>(mean.numel())});
      });
    }
    if (cache_) cache_->flush();
  }
  if (cache_) cache_->prune(options_.cache_bytes);
  return measures;
}

}  // namespace retort
