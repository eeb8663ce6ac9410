#include "monitor/measure.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <llama.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/schema.h"
#include "monitor/canary.h"
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

Json to_json(const RowMeasure& measure) {
  Json counts = Json::object();
  for (const auto& [name, entries] : measure.counts) {
    counts[name] = Json::array();
    for (const auto& [bucket, count] : entries) counts[name].push_back({bucket, count});
  }
  return {{"numbers", measure.numbers}, {"counts", counts}, {"features", measure.features}};
}

RowMeasure measure_from(const Json& json) {
  RowMeasure measure;
  measure.numbers = json.at("numbers").get<std::map<std::string, double>>();
  for (const auto& [name, entries] : json.at("counts").items()) {
    for (const Json& entry : entries) {
      const auto bucket = entry.at(0).get<int32_t>();
      if (bucket < 0 || bucket >= TokenHash::kBuckets) fail(Exit::bad_input, "bucket {}", bucket);
      measure.counts[name].emplace_back(bucket, entry.at(1).get<int64_t>());
    }
  }
  measure.features = json.at("features").get<std::map<std::string, std::vector<int32_t>>>();
  for (const auto& [name, values] : measure.features) {
    if (values.size() != 2 * kFrequencies) fail(Exit::bad_input, "{} features", values.size());
  }
  return measure;
}

}  // namespace

std::string keyed_hash(const std::string& key, const std::string& text, size_t bytes) {
  std::string hex;
  for (char c : hmac_sha256(key, text).substr(0, bytes)) hex += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return hex;
}

std::string key_id(const std::string& key) { return keyed_hash(key, "which key", 8); }

/// A file of JSON lines that grows: {"row": keyed hash, …}. A line that cannot be read is as if it were not there, so
/// that a broken write costs one row's measuring and no more.
struct Measurer::Cache {
  Cache(const std::string& identity, const std::string& key)
      : path(cache_folder() / "drift" / (identity + ".jsonl")), key(key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      try {
        const Json json = Json::parse(line);
        rows[json.at("row").get<std::string>()] = measure_from(json);
      } catch (const std::exception&) {
        continue;
      }
    }
  }

  std::string row_key(const TrafficRow& row) const {
    auto field = [](const std::optional<std::string>& text) {
      return text ? fmt::format("{}:{}", text->size(), *text) : std::string("-");
    };
    return keyed_hash(key, fmt::format("row {} {} {}", field(row.text), field(row.answer), field(row.label)));
  }

  void keep(const std::vector<std::string>& keys) {
    // Begins a new line, in case the last one was broken off.
    std::string lines = "\n";
    for (const std::string& row : keys) {
      Json json = to_json(rows.at(row));
      json["row"] = row;
      lines += json.dump() + "\n";
    }
    std::filesystem::create_directories(path.parent_path());
    const FileLock lock(path.string() + ".lock");
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) fail(Exit::io, "{}: cannot be written: {}", path.string(), std::strerror(errno));
    for (size_t done = 0; done < lines.size();) {
      const ssize_t n = write(file, lines.data() + done, lines.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const int error = errno;
        close(file);
        fail(Exit::io, "{}: cannot be written: {}", path.string(), std::strerror(error));
      }
      done += static_cast<size_t>(n);
    }
    close(file);
  }

  std::filesystem::path path;
  std::string key;
  std::unordered_map<std::string, RowMeasure> rows;
};

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
    cache_ = std::make_unique<Cache>(keyed_hash(options_.key, settings), options_.key);
  }
  std::vector<RowMeasure> measures(rows.size());
  std::vector<size_t> open;
  std::vector<std::string> keys(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (cache_) {
      keys[i] = cache_->row_key(rows[i]);
      if (const auto known = cache_->rows.find(keys[i]); known != cache_->rows.end()) {
        measures[i] = known->second;
        continue;
      }
    }
    open.push_back(i);
  }
  bool asks = false;
  for (const auto& [name, kind] : signals_) asks |= kind->asks_model;
  size_t done = rows.size() - open.size();
  for (size_t first = 0; first < open.size(); first += kRowsAtOnce) {
    const size_t last = std::min(open.size(), first + kRowsAtOnce);
    std::vector<std::vector<int32_t>> documents;
    for (size_t i = first; i < last; ++i) {
      const TrafficRow& row = rows[open[i]];
      documents.push_back(tokenizer_->encode(row.text, false, true));
      if (documents.back().empty()) fail(Exit::bad_input, "{}: the text has no tokens", row.place);
      const auto most = static_cast<size_t>(options_.max_tokens);
      if (documents.back().size() > most) documents.back().resize(most);
    }
    std::vector<std::string> fresh;
    auto take = [&](size_t d, int64_t bytes, double log_p, std::span<const float> state) {
      const size_t i = open[first + d];
      measures[i] = measured({rows[i], *tokenizer_, documents[d], bytes, log_p, state});
      if (cache_) {
        cache_->rows[keys[i]] = measures[i];
        fresh.push_back(keys[i]);
      }
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
    if (cache_) cache_->keep(fresh);
  }
  return measures;
}

}  // namespace retort
