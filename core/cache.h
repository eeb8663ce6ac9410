// The content-addressed store behind pull(), under cache_folder():
//   blobs/sha256/<hex>          the bytes, read-only
//   index/<key>.json            what a URI stands for; its modification time says when it was last used
//   files/<16 digits>/<name>    links to blobs under names that readers understand
//   partial/<key>/, locks/      downloads on their way
//   datasets/, vocab/, drift/, teachers/
//                               what other folders derived from sources; prune may delete it, it is made again
// where <key> is the start of the URI's SHA-256.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace retort {

/// What a URI stands for: one file (sha256), or a folder of parts (name, SHA-256).
struct CacheRecord {
  std::string uri, sha256;
  uint64_t bytes = 0;
  std::vector<std::pair<std::string, std::string>> parts;
};

std::string cache_key(const std::string& uri);
std::filesystem::path blob_path(const std::string& sha256);

/// The record of a URI whose blobs are all there; nothing for a damaged record.
std::optional<CacheRecord> find_record(const std::string& uri);

/// SHA-256 of a cached file; Error(internal) when the URI is not in the cache.
std::string cached_sha256(const std::string& uri);

/// Moves `file` into the store under its hash and records it. The lock of the store is taken for that moment.
void store_file(const std::string& uri, const std::filesystem::path& file, const std::string& sha256);
void store_record(const CacheRecord& record);

/// The path to hand out, linked anew where that is needed; marks the record as used now.
std::filesystem::path link_record(const CacheRecord& record);

}  // namespace retort
