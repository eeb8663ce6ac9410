// What a retraining keeps between slots: the champion, every verdict by its key, and what belongs to a version.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/files.h"
#include "core/json.h"
#include "recipes/recipe.h"

namespace retort {

/// A model that serves, served, or might.
struct StoredModel {
  std::string sha256;
  std::filesystem::path file;
  Json verdict;  ///< that promoted it; null when it was promoted by hand
};

class RetrainStore {
 public:
  /// Locks the model for as long as the object lives. Error(retry) when another process holds it.
  explicit RetrainStore(const Recipe& recipe);
  ~RetrainStore();

  /// What was decided under this key.
  std::optional<Json> verdict(const std::string& key) const;
  std::optional<StoredModel> champion() const;
  std::optional<StoredModel> previous() const;
  /// Keeps a verdict that changes no model.
  void record(const std::string& key, const Json& verdict);
  /// The file becomes champion and the verdict is kept, both or neither.
  void promote(const std::string& key, const Json& verdict, const std::filesystem::path& file,
               const std::string& sha256);
  /// The previous model becomes champion again, and the verdict is kept, both or neither.
  void roll_back(const std::string& key, const Json& verdict);
  /// Where files that belong to a model of this hash lie: the rows it has seen, its profiles and alarms.
  std::filesystem::path files_of(const std::string& sha256) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort
