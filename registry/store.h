// Files by their hash, and the link to the one that serves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace retort {

struct StoredArtifact {
  std::string sha256, name;
  uint64_t bytes = 0;
};

/// <folder>/artifacts/<sha256>/<name>
std::filesystem::path artifact_path(const std::filesystem::path& folder, const std::string& sha256,
                                    const std::string& name);

/// Copies the file (by reference where the file system can) and fsyncs it and its folders; a file that is there already
/// and intact stays, a damaged one is replaced. Error(io).
StoredArtifact store_artifact(const std::filesystem::path& folder, const std::filesystem::path& file);

/// Whether the file is there and has this hash.
bool is_intact(const std::filesystem::path& path, const std::string& sha256);

/// Makes `link` point to `target`, from any moment to the next, and fsyncs its folder; an empty target removes it.
/// Nothing is written when it points there already. Error(io).
void point_link(const std::filesystem::path& link, const std::filesystem::path& target);

}  // namespace retort
