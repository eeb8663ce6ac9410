// A baseline without its text: what each signal of a data set looks like, in sketches that can be merged but not read.
//
// Numbers: a quantile sketch. Tokens: counts of keyed-hash buckets. Vectors: the mean of random features. A profile of
// two data sets together is the merge of their profiles, to the bit. docs/drift.md says what it holds and how large it
// is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "monitor/calibration.h"
#include "monitor/canary.h"
#include "monitor/detector.h"
#include "monitor/measure.h"
#include "monitor/quantile_sketch.h"

namespace retort {

/// One signal of a set of rows. Only the member that its kind uses is filled.
struct SignalProfile {
  int64_t rows = 0;  ///< that have this signal
  QuantileSketch numbers;
  std::vector<int64_t> counts;  ///< [TokenHash::kBuckets]
  FeatureMean features;
  /// Of the numbers, and the q-th quantile: within 0.5 %, and exact for a signal that is 0 or 1.
  double mean(const std::string& signal) const;
  double quantile(const std::string& signal, double q) const;
};

/// What profiles must share to be merged or compared.
struct ProfileIdentity {
  std::string model;         ///< file name, for people
  std::string model_sha256;  ///< of the champion's file
  std::string tokenizer;     ///< Tokenizer::hash()
  std::string key;           ///< key_id() of the project's key
  int64_t max_tokens = 0;
  double gamma = 0;           ///< of the features' kernel
  uint64_t feature_seed = 0;  ///< of the features
  int64_t dimensions = 0;     ///< of the champion's hidden states
  Json to_json() const;
  static ProfileIdentity from_json(const Json& json, const std::string& where);
  /// Error(bad_input) naming `where` and the first thing that differs.
  void require_same(const ProfileIdentity& other, const std::string& where) const;
};

struct Profile {
  ProfileIdentity identity;
  int64_t rows = 0;
  std::map<std::string, SignalProfile> signals;
  std::optional<Canaries> canaries;
  /// "signal/detector": the null at several sizes; made by `retort drift calibrate`, dropped by merge().
  std::map<std::string, std::vector<NullTable>> nulls;
  int64_t block = 0;  ///< rows, of the calibration

  void add(const RowMeasure& measure);
  /// Error(bad_input) when the profiles cannot be compared.
  void merge(const Profile& other);
  Json to_json() const;
  static Profile from_json(const Json& json, const std::string& where);
};

/// {"sha256": of the rest as text, "profile": …}, atomically. Returns the hash.
std::string write_profile(const std::filesystem::path& path, const Profile& profile);
/// With its hash. Error(io); Error(bad_input) when the file is damaged or was edited.
std::pair<Profile, std::string> read_profile(const std::filesystem::path& path);

}  // namespace retort
