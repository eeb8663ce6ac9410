// Which model serves and why: runs, artifacts, versions, champion and previous, decisions with their evidence.
//
//   <folder>/registry.sqlite                     the truth (registry/tables.cpp has its tables)
//   <folder>/artifacts/<sha256>/<name>           files by their hash, never changed
//   <folder>/models/<model>/champion             a link to the file that serves; repaired when the registry is opened
//   <folder>/models/<model>/versions/<sha256>/   what else belongs to a version: profiles, row hashes
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"

namespace retort {

/// The right to change one model, until the object or the process ends: a flock, and a number that only grows. A holder
/// whose number is no longer the newest (its lock file was removed) cannot write any more.
class ModelLease {
 public:
  const std::string& model() const { return model_; }
  int64_t fence() const { return fence_; }

 private:
  friend class Registry;
  ModelLease(std::string model, const std::filesystem::path& lock)
      : model_(std::move(model)), lock_(std::make_unique<FileLock>(lock, false)) {}
  std::string model_;
  std::unique_ptr<FileLock> lock_;
  int64_t fence_ = 0;
};

/// One file that is or was a candidate of a model.
struct ModelVersion {
  std::string model, sha256;
  std::filesystem::path file = {};  ///< in the registry
  uint64_t bytes = 0;
  int64_t added_at = 0;  ///< seconds since 1970
  Json info = {};        ///< what promote() or challenge() was given
  Json verdict = {};     ///< that promoted it last; null when none did
  bool removed = false;  ///< by gc: the file is no longer there
};

/// What was decided, and everything that it rests on.
struct RegistryDecision {
  std::string kind;      ///< promoted, rejected, rolled_back, nothing_due, …
  std::string key = {};  ///< of the run; empty: by hand
  std::string slot = {};
  int64_t at = 0;  ///< seconds since 1970; 0: now
  int exit = 0;
  std::vector<std::string> reasons = {};
  Json verdict = {};            ///< returned for the same key by find_run
  std::string challenger = {};  ///< hash of the file that it is about; promote and roll_back set it where it is empty
  Json evaluations = {};        ///< array of {"kind" or "name", "data", "on", "value", "stderr", "n"}
  int64_t id = 0, fence = 0;    ///< set by the registry
  std::string champion = {};    ///< hash of the one that serves since; set by the registry
};

/// What gc() keeps besides the files that an alias names.
struct KeepRule {
  int64_t last = 5;   ///< versions promoted last, of each model
  int64_t days = 30;  ///< versions added or decided upon within so many days
  int64_t now = 0;    ///< seconds since 1970; 0: now
};
struct RemovedArtifact {
  std::string sha256, model;  ///< model: empty for what a killed process left
  uint64_t bytes = 0;
};

class Registry {
 public:
  enum class Access { read, write };
  /// Access::write creates what is missing; both repair links where they may write. Errors: usage (a network file
  /// system), io (no registry there, not writable), bad_input (damaged, or of a newer program).
  explicit Registry(std::filesystem::path folder, Access access = Access::write);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  const std::filesystem::path& folder() const;

  /// Error(retry) when another process has it. A model's name: letters, digits, "._-", no leading dot.
  ModelLease lease(const std::string& model);

  /// The verdict of the finished run of this key; nothing when there is none.
  std::optional<Json> find_run(const std::string& key) const;
  /// Says that a run is under way; again after a crash counts its attempts.
  void begin_run(const ModelLease& lease, const std::string& key, const std::string& slot, int64_t at = 0);
  /// Keeps a decision that changes no alias, and finishes its run, both or neither.
  void record(const ModelLease& lease, const RegistryDecision& decision);

  /// Copies the file into the registry, fsynced, as the model's challenger. `info`: what the card says of it.
  ModelVersion challenge(const ModelLease& lease, const std::filesystem::path& file, const Json& info = Json::object());
  /// The file, or a version by its hash, becomes champion and the champion previous; the decision is kept and its run
  /// finished: all in one transaction, after the file is fsynced. Then the link is renamed. What waited as challenger
  /// waits no more. Error(bad_input) when the file has not the hash that the decision names.
  ModelVersion promote(const ModelLease& lease, const std::filesystem::path& file, const RegistryDecision& decision,
                       const Json& info = Json::object());
  ModelVersion promote_version(const ModelLease& lease, const std::string& sha256, const RegistryDecision& decision);
  /// The previous one becomes champion again, and there is no previous then. Error(usage) without a previous,
  /// Error(bad_input) when its file no longer has its hash.
  ModelVersion roll_back(const ModelLease& lease, const RegistryDecision& decision);

  std::vector<std::string> models() const;
  /// "champion", "challenger" or "previous".
  std::optional<ModelVersion> alias(const std::string& model, const std::string& name) const;
  /// The newest first.
  std::vector<ModelVersion> versions(const std::string& model) const;
  /// By alias, or by the first digits of the hash. Error(usage) names what there is.
  ModelVersion find(const std::string& model, const std::string& name) const;
  /// The newest first; 0: all.
  std::vector<RegistryDecision> decisions(const std::string& model, int64_t limit = 0) const;
  /// The newest figures first: {"name", "data", "on", "value", "stderr", "n", "at"}.
  Json evaluations(const std::string& model, const std::string& sha256) const;

  /// What a drift alarm knew after a slot. The first state of a slot stays, and is what is returned.
  Json keep_drift_state(const ModelLease& lease, const std::string& sha256, const std::string& slot, const Json& state);
  /// Of the last slot of this version; null before the first.
  Json drift_state(const std::string& model, const std::string& sha256) const;

  /// Where files lie that belong to a version; gc removes them with it. Not created.
  std::filesystem::path files_of(const std::string& model, const std::string& sha256) const;

  /// Removes files that no alias and no rule keeps, and what killed processes left. The history stays.
  std::vector<RemovedArtifact> gc(const KeepRule& rule, bool dry_run);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort
