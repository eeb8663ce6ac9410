// Measures of rows that were read before, in a file that is kept small.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "monitor/measure.h"

namespace retort {

/// Lines "<keyed hash of a row> <JSON>", the newest last. A line that cannot be read is as if it were not there, so
/// that a broken write costs one row's measuring and no more. Only rows that are asked for are parsed.
class MeasureCache {
 public:
  MeasureCache(std::filesystem::path path, std::string key);

  std::string row_key(const TrafficRow& row) const;
  /// nullopt for a row that was not kept. A row that was is one of those that prune() keeps.
  std::optional<RowMeasure> find(const std::string& row_key);
  /// Appends the line; written by flush(), under a lock.
  void add(const std::string& row_key, const RowMeasure& measure);
  /// Error(io).
  void flush();
  /// Where lines that this object was neither asked for nor given are longer than `most` bytes, keeps the newest of
  /// them, up to half of that. Error(io).
  void prune(uint64_t most);

 private:
  std::filesystem::path path_;
  std::string key_, pending_;
  std::unordered_map<std::string, std::string> lines_;  ///< JSON by row
  std::unordered_set<std::string> used_;
};

}  // namespace retort
