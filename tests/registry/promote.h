// Small models for the registry's tests.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/temporary_folder.h"
#include "registry/registry.h"

namespace retort {

/// Promotes a file of this content; its hash.
inline std::string promoted(Registry& registry, const ModelLease& lease, const std::string& content) {
  const TemporaryFolder folder;
  write_atomic(folder / "model.gguf", content);
  return registry.promote(lease, folder / "model.gguf", {.kind = "promoted"}).sha256;
}

/// The hash of the file that the champion's link leads to, by its content.
inline std::string champion_of(const std::filesystem::path& folder, const std::string& model = "m") {
  return sha256_file(folder / "models" / model / "champion");
}

/// What must hold at any time: opened again, the registry has one champion, the link agrees, the file has its hash.
inline std::string checked_champion(const std::filesystem::path& folder) {
  const Registry registry(folder);
  const auto champion = registry.alias("m", "champion");
  EXPECT_TRUE(champion);
  if (!champion) return "";
  EXPECT_EQ(sha256_file(champion->file), champion->sha256);
  EXPECT_EQ(champion_of(folder), champion->sha256);
  EXPECT_EQ(registry.decisions("m", 1).at(0).champion, champion->sha256);
  return champion->sha256;
}

}  // namespace retort
