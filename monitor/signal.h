// Signals: what is measured of each row of traffic. One file a kind in monitor/signals/.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "monitor/traffic.h"

namespace retort {

/// A row with what the champion made of it.
struct SignalInput {
  const TrafficRow& row;
  const Tokenizer& tokenizer;
  std::span<const int32_t> ids;  ///< the first tokens of row.text, at most the profile's max_tokens
  int64_t predicted_bytes = 0;   ///< UTF-8 bytes of the tokens that have a prediction
  double log_p = 0;              ///< the sum of their log-probabilities, nats
  std::span<const float> state;  ///< mean of the final hidden states over all positions
};

/// A kind of signal. Each monitor/signals/<name>.cpp defines `extern const SignalKind signal_<name>` with one of the
/// three functions; which one decides what the profile keeps: a quantile sketch, hashed counts, a mean of features.
struct SignalKind {
  const char* summary;  ///< one line
  const char* unit;
  bool asks_model = false;  ///< reads log_p or state
  bool yes_no = false;      ///< the number is 0 or 1
  /// A number from 0 on; nullopt: the row has no such figure.
  std::optional<double> (*number)(const SignalInput&) = nullptr;
  std::vector<int32_t> (*tokens)(const SignalInput&) = nullptr;
  std::vector<float> (*vector)(const SignalInput&) = nullptr;
};

/// Every kind by name.
const std::map<std::string, const SignalKind*>& signal_kinds();

}  // namespace retort
