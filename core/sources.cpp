#include "core/sources.h"

#include <algorithm>

#include "core/cache.h"
#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/source_kind.h"

namespace retort {
namespace fs = std::filesystem;

#define KIND(name) extern const SourceKind source_##name;
#include "source_kinds.inc"
#undef KIND

namespace {

const SourceKind* const kinds[] = {
#define KIND(name) &source_##name,
#include "source_kinds.inc"
#undef KIND
};

std::string shown(const Source& source) { return source.name.empty() ? source.uri : source.name; }

// The kind of a URI; nullptr for a plain path.
const SourceKind* kind_of(const Source& source) {
  for (const SourceKind* kind : kinds) {
    if (kind->accepts(source.uri)) return kind;
  }
  const size_t colon = source.uri.find("://");
  if (colon != 0 && colon != source.uri.npos && source.uri.find('/') == colon + 1) {
    std::string forms;
    for (const SourceKind* kind : kinds) forms += fmt::format("\n  {}", kind->form);
    fail(Exit::usage, "{}: unknown kind of source; allowed: a path, or{}", source.uri, forms);
  }
  return nullptr;
}

void check_sha256(const Source& source, const std::string& found, const char* then) {
  if (source.sha256.empty() || source.sha256 == found) return;
  fail(Exit::unavailable, "{}: wrong SHA-256: expected {}, found {}{}", shown(source), source.sha256, found, then);
}

fs::path plain_path(const Source& source) {
  const fs::path path = source.uri;
  std::error_code error;
  if (source.uri.empty() || !fs::exists(path, error)) {
    fail(Exit::unavailable, "{}: there is no such file or folder", source.uri.empty() ? "an empty path" : source.uri);
  }
  if (!source.sha256.empty()) {
    if (fs::is_directory(path)) fail(Exit::usage, "{}: a folder has no SHA-256; remove the sha256 key", source.uri);
    check_sha256(source, sha256_file(path), "");
  }
  return path;
}

// The path when the cache has what is asked for.
std::optional<fs::path> from_cache(const Source& source) {
  std::optional<CacheRecord> record = find_record(source.uri);
  if (record && !source.sha256.empty() && record->sha256 != source.sha256) record.reset();
  std::error_code error;
  if (!record && !source.sha256.empty() && fs::exists(blob_path(source.sha256), error)) {
    // Another URI brought the same bytes.
    record = {source.uri, source.sha256, fs::file_size(blob_path(source.sha256)), {}};
    store_record(*record);
  }
  if (!record) return std::nullopt;
  return link_record(*record);
}

void store(const Source& source, Fetched fetched) {
  if (!fetched.parts.empty()) {
    uint64_t bytes = 0;
    for (const auto& [name, sha256] : fetched.parts) bytes += fs::file_size(blob_path(sha256));
    store_record({source.uri, "", bytes, std::move(fetched.parts)});
    return;
  }
  if (fetched.sha256.empty()) fetched.sha256 = sha256_file(fetched.file);
  if (!source.sha256.empty() && source.sha256 != fetched.sha256) fs::remove(fetched.file);
  check_sha256(source, fetched.sha256, "; the file is deleted");
  store_file(source.uri, fetched.file, fetched.sha256);
}

}  // namespace

fs::path pull(const Source& given, const PullOptions& options) {
  Source source = given;
  std::transform(source.sha256.begin(), source.sha256.end(), source.sha256.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (!source.sha256.empty() &&
      (source.sha256.size() != 64 || source.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)) {
    fail(Exit::usage, "{}: sha256 must be 64 hexadecimal digits, found \"{}\"", source.uri, given.sha256);
  }
  const SourceKind* kind = kind_of(source);
  if (!kind) return plain_path(source);
  if (!options.refresh) {
    if (auto path = from_cache(source)) return *path;
  }
  const std::string key = cache_key(source.uri);
  const FileLock lock(cache_folder() / "locks" / key);
  if (!options.refresh) {
    if (auto path = from_cache(source)) return *path;  // another process fetched it while this one waited
  }
  const fs::path work = cache_folder() / "partial" / key;
  std::error_code error;
  if (!kind->resumes) fs::remove_all(work, error);  // of a killed process
  fs::create_directories(work, error);
  if (error) fail(Exit::io, "{}: cannot create the folder: {}", work.string(), error.message());
  try {
    store(source, kind->fetch(source, work, options));
  } catch (...) {
    if (!kind->resumes) fs::remove_all(work, error);
    throw;
  }
  fs::remove_all(work, error);
  return link_record(*find_record(source.uri));
}

void refuse_form(const Source& source, const char* form) {
  fail(Exit::usage, "{}: a source of this kind is written {}", source.uri, form);
}

std::pair<std::string, std::string> split_archive_uri(const std::string& rest, const Source& source, const char* form) {
  const size_t mark = rest.rfind('!');
  if (mark == rest.npos || mark == 0 || mark + 1 == rest.size()) refuse_form(source, form);
  const fs::path path = rest.substr(mark + 1);
  if (path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end()) {
    fail(Exit::usage, "{}: the path after ! must be relative and without ..", source.uri);
  }
  return {rest.substr(0, mark), path.string()};
}

std::string last_words(const std::string& errors) {
  size_t end = errors.find_last_not_of(" \r\n");
  if (end == errors.npos) return "it says nothing";
  size_t begin = errors.rfind('\n', end);
  begin = begin == errors.npos ? 0 : begin + 1;
  return errors.substr(begin, std::min<size_t>(end - begin + 1, 500));
}

}  // namespace retort
