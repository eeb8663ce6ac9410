// Files: mapped for reading, written under a temporary name and renamed, locked between processes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace retort {

/// A whole file mapped read-only. Everything that points into it holds the shared_ptr.
class MappedFile {
 public:
  /// Throws Error(io) when the file cannot be opened or mapped. An empty file gives an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::filesystem::path path_;
  const uint8_t* data_;
  size_t size_;
};

/// Reads a whole file; Error(io) when it cannot be read, Error(bad_input) when it is larger than `limit` bytes.
std::string read_text(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 30);

/// A file that appears under its name only when commit() has written and fsynced all of it.
/// The temporary lies beside it; a destructor without commit() removes it, and what a killed process left is removed
/// when the same name is written a day later. Missing folders are created. Errors: Error(io) with path and errno text.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void write(std::span<const uint8_t> bytes);
  uint64_t position() const { return position_; }
  /// Where the bytes lie until commit(); libraries that write by path (HDF5, libllama) may write here instead of
  /// write().
  const std::filesystem::path& temporary() const { return temporary_; }
  /// Flushes, fsyncs, renames, fsyncs the folder.
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
  uint64_t position_ = 0;
  bool committed_ = false;
};

void write_atomic(const std::filesystem::path& path, std::string_view text);

/// A copy that appears under its name when it is complete. Error(io).
void copy_atomic(const std::filesystem::path& from, const std::filesystem::path& to);

/// A folder that appears under its name only at commit(): fsyncs its files, then renames. An older folder of that name
/// is swapped out and removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& temporary() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
};

/// An exclusive advisory lock (flock) on `path`, created when missing; released by the destructor or by the process's
/// end.
class FileLock {
 public:
  /// Waits for the lock; with wait = false throws Error(retry) when another process holds it.
  explicit FileLock(const std::filesystem::path& path, bool wait = true);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_;
};

/// $RETORT_CACHE, else $XDG_CACHE_HOME/retort, else ~/.cache/retort. Created when missing.
std::filesystem::path cache_folder();
/// Says that a file or folder in it is in use, so that `retort cache prune --older-than` does not call it old.
void mark_used(const std::filesystem::path& path);

}  // namespace retort
