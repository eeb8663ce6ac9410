// What the registry's sources share.
#pragma once

#include <memory>
#include <string>

#include "registry/registry.h"
#include "registry/store.h"
#include "registry/tables.h"

namespace retort {

/// Seconds since 1970 by this machine's clock, unless a time is given.
int64_t time_or_now(int64_t at);

struct Registry::State {
  std::filesystem::path folder;
  std::unique_ptr<Database> database;

  /// Held while files and links change, never for long.
  FileLock files_lock(bool wait = true) const { return FileLock(folder / "locks" / "files", wait); }
  std::filesystem::path link_of(const std::string& model) const { return folder / "models" / model / "champion"; }
  /// What the link of this model should hold; empty without a champion.
  std::filesystem::path target_of(const std::string& model) const;
  void repair_links() const;

  /// Inside a transaction. Error(retry) when the lease is no longer the newest.
  void check(const ModelLease& lease) const;
  std::string alias(const std::string& model, const std::string& name) const;  ///< "" for none
  void set_alias(const std::string& model, const std::string& name, const std::string& sha256) const;
  void add_version(const std::string& model, const StoredArtifact& artifact, const Json& info) const;
  /// `before`: the champion that evaluations on "champion" are of.
  void add_decision(const ModelLease& lease, const RegistryDecision& decision, const std::string& before) const;
  /// The version becomes champion, and the decision is kept.
  void serve(const ModelLease& lease, const std::string& sha256, RegistryDecision decision) const;
};

}  // namespace retort
