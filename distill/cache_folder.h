// The folder of a cache: a manifest for each process that fills it, shards, and the cells.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "distill/cache_shard.h"
#include "distill/logit_cache.h"

namespace retort {

/// What all shards of a cache have in common.
struct CacheHeader {
  CacheSubject subject;
  CacheOptions options;
  int64_t cells = 0;
  std::string cells_hash;

  Json to_json() const;
  /// Error(bad_input) naming `where` and the key.
  static CacheHeader from_json(const Json& json, const std::string& where);
  ShardLayout layout() const;
  /// 16 hexadecimal digits that follow from all of this and the format: the name of a folder that needs no other.
  std::string key() const;
};

/// One whole shard, as its manifest lists it.
struct ListedShard {
  std::string file, seal;
  ShardStatistics statistics;
  uint64_t bytes = 0;
};

struct CacheManifest {
  CacheHeader header;
  std::vector<ListedShard> shards;
};

std::filesystem::path manifest_path(const std::filesystem::path& folder, CacheShare share);
std::filesystem::path cells_path(const std::filesystem::path& folder);
CacheManifest read_manifest(const std::filesystem::path& path);
void write_manifest(const std::filesystem::path& path, const CacheManifest& manifest);
/// All manifests of the folder, by name; none when there is no cache.
std::vector<std::filesystem::path> manifests_of(const std::filesystem::path& folder);
/// The manifests as one. Error(bad_input) when there is none, or when two are of different caches, naming both and the
/// first key that differs.
CacheManifest merged_manifest(const std::filesystem::path& folder);
/// Error(bad_input) naming both and the first key in which they differ, when they do.
void expect_equal(const CacheHeader& expected, const std::string& of, const CacheHeader& found,
                  const std::string& where);

/// The shard, after its seal was compared with the manifest's. Error(bad_input) naming the file.
ShardReader open_shard(const std::filesystem::path& folder, const ListedShard& shard, bool verify);

void write_cells(const std::filesystem::path& path, const Cells& cells);
Cells read_cells(const std::filesystem::path& path);

}  // namespace retort
