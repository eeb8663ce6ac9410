// Every signal of every row, in one pass over the champion; rows that were measured before come from the cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/served.h"
#include "monitor/hashed_counts.h"
#include "monitor/random_features.h"
#include "monitor/signal.h"

namespace retort {

/// What is kept of a row: nothing to read it from without the project's key.
struct RowMeasure {
  std::map<std::string, double> numbers;
  std::map<std::string, SparseCounts> counts;
  std::map<std::string, std::vector<int32_t>> features;  ///< in units of kFeatureUnit
};

/// Features are whole multiples of this, so that their sums are exact in any order: profiles merge to the bit.
constexpr double kFeatureUnit = 0x1p-30;
constexpr size_t kFrequencies = 256;

struct MeasureOptions {
  std::vector<std::string> signals;  ///< names; empty: all
  int64_t max_tokens = 256;          ///< of a row's text; the rest is cut
  std::string key;                   ///< the project's
  int threads = 0;
  bool cache = true;
  uint64_t cache_bytes = uint64_t{64} << 20;  ///< of rows that a call does not ask for: the oldest go beyond
  double gamma = 0;                           ///< of a profile that rows are compared with; 0: the model's own
};

class MeasureCache;

/// The champion, asked about rows.
class Measurer {
 public:
  /// Error(bad_input) when the model does not load; Error(usage) for an unknown signal. The model is loaded when it is
  /// first asked for something that the cache does not have.
  Measurer(std::filesystem::path model, MeasureOptions options);
  ~Measurer();

  const std::string& model_sha256() const { return model_sha256_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  ServedModel& model();
  /// Of the kernel: from the median distance of the champion's states of fixed texts, to the nearest half power of two.
  /// It belongs to the model, so that all profiles of a model can be merged. 0 when no signal is a vector.
  double gamma();
  uint64_t feature_seed() const;
  /// Numbers of a hidden state.
  int64_t dimensions();
  /// In the order of the rows. Error(bad_input) naming a row without tokens; Error(retry) after a stop signal, with the
  /// rows so far in the cache.
  std::vector<RowMeasure> measure(std::span<const TrafficRow> rows,
                                  const std::function<void(size_t done, size_t all)>& progress = {});

 private:
  RowMeasure measured(const SignalInput& input);

  std::filesystem::path path_;
  MeasureOptions options_;
  std::string model_sha256_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ServedModel> model_;
  std::map<std::string, const SignalKind*> signals_;
  TokenHash token_hash_;
  std::unique_ptr<RandomFeatures> features_;
  std::unique_ptr<MeasureCache> cache_;
};

/// HMAC-SHA-256's first `bytes` in hexadecimal.
std::string keyed_hash(const std::string& key, const std::string& text, size_t bytes = 16);
/// Which key: the same for the same key, and no help in finding it.
std::string key_id(const std::string& key);

}  // namespace retort
