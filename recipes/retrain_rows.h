// Which rows a model has seen: so that a later run can say how many are new.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"
#include "recipes/recipe.h"

namespace retort {

/// Rows as keyed hashes of their text: enough to count, not to read.
class RowSet {
 public:
  /// The recipe's training rows before the guards. Without a key anyone who knows a row can tell that it was there.
  static RowSet of(const std::vector<DatasetOptions>& files, const std::string& key);
  static RowSet read(const std::filesystem::path& path);
  void write(const std::filesystem::path& path) const;

  int64_t size() const { return static_cast<int64_t>(hashes_.size()); }
  /// Rows of this set that `other` has not.
  int64_t beyond(const RowSet& other) const;

 private:
  std::vector<uint64_t> hashes_;  // sorted, each once
};

/// SHA-256 over what decides a slot's verdict: the recipe, the bytes of its rows, what guards and evaluators have of
/// their own (`judged`, of guarded_hash()), the base, the program (`code`), the slot. Traffic is not in it: what comes
/// later in a slot is looked at in the next one.
std::string retrain_key(const Recipe& recipe, const std::vector<DatasetOptions>& train,
                        const std::vector<DatasetOptions>& validation, const std::string& judged,
                        const std::string& base, const std::string& code, const std::string& slot);

}  // namespace retort
