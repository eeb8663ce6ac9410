#include "core/cache.h"

#include <re2/re2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/log.h"
#include "core/sources.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

fs::path index_folder() { return cache_folder() / "index"; }
fs::path record_path(const std::string& uri) { return index_folder() / (cache_key(uri) + ".json"); }

// Held while blobs and records change together, so that prune never sees one without the other.
FileLock lock_store() { return FileLock(cache_folder() / "locks" / "store"); }

// What stands after the last / or ! of the URI, as a file name for any system.
std::string file_name_of(const std::string& uri) {
  const std::string path = uri.substr(0, uri.find_first_of("?#"));
  std::string name = path.substr(path.find_last_of("/!") + 1);
  if (uri.starts_with("join:")) {  // the last piece's name: "model.gguf.part03" of "model.gguf"
    static const RE2 piece("(.+?)[.](?:part-?)?(?:[0-9]+|[a-z]{2})");
    RE2::FullMatch(std::string(name), piece, &name);
  }
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && !std::strchr("._+-", c)) c = '_';
  }
  if (name.size() > 120) name.erase(0, name.size() - 120);  // the extension stands at the end
  if (name.empty() || name[0] == '.') name.insert(0, "file");
  return name;
}

std::string link_folder_of(const CacheRecord& record) {
  return record.parts.empty() ? record.sha256.substr(0, 16) : cache_key(record.uri).substr(0, 16);
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

// Another process may do the same at the same time; whoever comes last wins, with the same bytes.
void link_file(const fs::path& blob, const fs::path& to) {
  if (same_file(blob, to)) return;
  std::error_code error;
  fs::create_directories(to.parent_path(), error);
  const fs::path temporary = to.string() + fmt::format(".{}", getpid());
  fs::remove(temporary, error);
  fs::create_hard_link(blob, temporary, error);
  if (error) fs::create_symlink(blob, temporary, error);  // a file system without hard links
  if (!error) fs::rename(temporary, to, error);
  if (error) fail(Exit::io, "{}: cannot link to {}: {}", to.string(), blob.string(), error.message());
  fs::remove(temporary, error);  // renaming onto the same inode does nothing and leaves it
}

CacheRecord read_record(const fs::path& path) {
  const Json json = read_json(path);
  const std::string where = path.string();
  CacheRecord record{json_get<std::string>(json, "uri", where),
                     json_get<std::string>(json, "sha256", where),
                     json_get<uint64_t>(json, "bytes", where),
                     {}};
  const Json parts = json_get<Json>(json, "parts", where, Json::object());
  for (const auto& [name, sha256] : parts.items()) record.parts.emplace_back(name, sha256.get<std::string>());
  return record;
}

// Every record that can be read, with its file.
std::vector<std::pair<CacheRecord, fs::path>> all_records() {
  std::vector<std::pair<CacheRecord, fs::path>> records;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(index_folder(), error)) {
    if (entry.path().extension() != ".json") continue;
    try {
      records.emplace_back(read_record(entry.path()), entry.path());
    } catch (const std::exception& problem) {
      log::warn("{}; the record is deleted", problem.what());
      std::error_code ignored;
      fs::remove(entry.path(), ignored);
    }
  }
  return records;
}

int64_t seconds_since_1970(const fs::path& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_mtime : 0;
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::set<std::string> hashes_of(const CacheRecord& record) {
  std::set<std::string> hashes;
  for (const auto& [name, sha256] : record.parts) hashes.insert(sha256);
  if (record.parts.empty()) hashes.insert(record.sha256);
  return hashes;
}

fs::path linked_path(const CacheRecord& record) {
  return cache_folder() / "files" / link_folder_of(record) / file_name_of(record.uri);
}

uint64_t size_of_tree(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return fs::file_size(path, error);
  uint64_t size = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) size += entry.file_size(error);
  }
  return size;
}

constexpr const char* derived_folders[] = {"datasets", "vocab", "guards", "drift", "teachers"};

// Deletes what `keep` refuses in a folder; the bytes that were in it.
template <typename F>
uint64_t sweep(const fs::path& folder, F&& keep) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (keep(entry.path())) continue;
    const uint64_t size = size_of_tree(entry.path());
    std::error_code failed;
    fs::remove_all(entry.path(), failed);
    if (!failed) bytes += size;
  }
  return bytes;
}

// Whether another process is fetching the URI of this key.
bool is_busy(const std::string& key) {
  try {
    FileLock lock(cache_folder() / "locks" / key, false);
    return false;
  } catch (const Error&) {
    return true;
  }
}

// Whether another process holds a lock inside the folder: it fills a cache of a teacher's words.
bool is_being_filled(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".lock") continue;
    try {
      FileLock lock(entry.path(), false);
    } catch (const Error&) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string cache_key(const std::string& uri) { return sha256_hex(uri).substr(0, 32); }

fs::path blob_path(const std::string& sha256) { return cache_folder() / "blobs" / "sha256" / sha256; }

std::optional<CacheRecord> find_record(const std::string& uri) {
  const fs::path path = record_path(uri);
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  try {
    CacheRecord record = read_record(path);
    for (const std::string& sha256 : hashes_of(record)) {
      const uint64_t size = fs::file_size(blob_path(sha256), error);
      if (error || (record.parts.empty() && size != record.bytes)) return std::nullopt;
    }
    return record;
  } catch (const std::exception& problem) {
    log::warn("{}; fetching again", problem.what());
    return std::nullopt;
  }
}

std::string cached_sha256(const std::string& uri) {
  const auto record = find_record(uri);
  if (!record) fail(Exit::internal, "{}: is not in the cache", uri);
  return record->sha256;
}

void store_record(const CacheRecord& record) {
  Json parts = Json::object();
  for (const auto& [name, sha256] : record.parts) parts[name] = sha256;
  write_json(record_path(record.uri),
             {{"uri", record.uri}, {"sha256", record.sha256}, {"bytes", record.bytes}, {"parts", parts}});
}

void store_file(const std::string& uri, const fs::path& file, const std::string& sha256) {
  const auto lock = lock_store();
  const fs::path blob = blob_path(sha256);
  std::error_code error;
  fs::create_directories(blob.parent_path(), error);
  fs::permissions(file, fs::perms::owner_read | fs::perms::group_read | fs::perms::others_read, error);
  const uint64_t bytes = fs::file_size(file, error);
  if (!error) fs::rename(file, blob, error);
  if (error) fail(Exit::io, "{}: cannot move to {}: {}", file.string(), blob.string(), error.message());
  store_record({uri, sha256, bytes, {}});  // its fsync of the folder comes after; a blob without a record is harmless
}

fs::path link_record(const CacheRecord& record) {
  const fs::path path = linked_path(record);
  if (record.parts.empty()) {
    link_file(blob_path(record.sha256), path);
  } else {
    const bool whole = std::all_of(record.parts.begin(), record.parts.end(), [&](const auto& part) {
      return same_file(blob_path(part.second), path / part.first);
    });
    if (!whole) {
      AtomicFolder folder(path);
      for (const auto& [name, sha256] : record.parts) link_file(blob_path(sha256), folder.temporary() / name);
      folder.commit();
    }
  }
  mark_used(record_path(record.uri));
  return path;
}

std::vector<CacheEntry> cache_entries() {
  std::vector<CacheEntry> entries;
  for (const auto& [record, path] : all_records()) {
    entries.push_back({record.uri, linked_path(record), record.bytes, seconds_since_1970(path)});
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.used > b.used; });
  return entries;
}

std::vector<CacheEntry> derived_entries() {
  std::vector<CacheEntry> entries;
  for (const char* name : derived_folders) {
    CacheEntry all{name, cache_folder() / name, 0, 0};
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(all.path, error)) {
      all.bytes += size_of_tree(entry.path());
      all.used = std::max(all.used, seconds_since_1970(entry.path()));
    }
    if (all.used > 0) entries.push_back(std::move(all));
  }
  return entries;
}

std::vector<std::string> verify_cache() {
  std::vector<std::string> problems;
  const auto lock = lock_store();
  std::set<std::string> sound;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache_folder() / "blobs" / "sha256", error)) {
    const std::string expected = entry.path().filename().string(), found = sha256_file(entry.path());
    if (expected == found) {
      sound.insert(expected);
      continue;
    }
    std::error_code ignored;
    fs::remove(entry.path(), ignored);
    problems.push_back(fmt::format("blob {}: found SHA-256 {}; deleted", expected, found));
  }
  for (const auto& [record, path] : all_records()) {
    for (const std::string& sha256 : hashes_of(record)) {
      if (sound.contains(sha256)) continue;
      // The links share the damaged bytes.
      std::error_code ignored;
      fs::remove_all(linked_path(record), ignored);
      fs::remove(path, ignored);
      problems.push_back(
          fmt::format("{}: needs the blob {}, which is not there; it will be fetched again", record.uri, sha256));
      break;
    }
  }
  return problems;
}

uint64_t prune_cache(int64_t seconds) {
  const auto lock = lock_store();
  std::set<std::string> needed, links;
  for (const auto& [record, path] : all_records()) {
    std::error_code ignored;
    const bool old = seconds == 0 || now() - seconds_since_1970(path) > seconds;
    if (old && !is_busy(cache_key(record.uri)) && fs::remove(path, ignored)) continue;
    needed.merge(hashes_of(record));
    links.insert(link_folder_of(record));
  }
  const fs::path folder = cache_folder();
  auto name = [](const fs::path& path) { return path.filename().string(); };
  // Blobs are counted, not the links to them.
  sweep(folder / "files", [&](const fs::path& path) { return links.contains(name(path)); });
  uint64_t bytes =
      sweep(folder / "blobs" / "sha256", [&](const fs::path& path) { return needed.contains(name(path)); });
  auto young = [&](const fs::path& path) { return seconds != 0 && now() - seconds_since_1970(path) <= seconds; };
  bytes += sweep(folder / "partial", [&](const fs::path& path) { return young(path) || is_busy(name(path)); });
  for (const char* derived : derived_folders)
    bytes += sweep(folder / derived, [&](const fs::path& path) { return young(path) || is_being_filled(path); });
  return bytes;
}

}  // namespace retort
