#include "core/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail_errno(const fs::path& path, const char* what, int error = errno) {
  fail(Exit::io, "{}: cannot {}: {}", path.string(), what, std::strerror(error));
}

// A descriptor that closes itself.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

// O_NONBLOCK: opening a named pipe must not wait for a writer. It means nothing to a regular file.
int open_to_read(const fs::path& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail_errno(path, "open");
  return fd;
}

void fsync_path(const fs::path& path) {
  Descriptor file{open_to_read(path)};
  // Some file systems cannot fsync a folder and say EINVAL; there is nothing more to do there.
  if (fsync(file.fd) != 0 && errno != EINVAL) fail_errno(path, "fsync");
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void create_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(Exit::io, "{}: cannot create the folder: {}", folder.string(), error.message());
}

// Removes what killed processes left of earlier attempts at `path`. A living writer touches its file within a day.
void remove_stale(const fs::path& path, const std::string& prefix) {
  std::error_code error;
  const auto limit = fs::file_time_type::clock::now() - std::chrono::hours(24);
  for (const auto& entry : fs::directory_iterator(parent_of(path), error)) {
    std::error_code ignored;
    if (entry.path().filename().string().starts_with(prefix) && entry.last_write_time(ignored) < limit && !ignored) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

// A name beside `path`, so that the rename stays in one file system; no other process or thread uses it.
fs::path temporary_beside(const fs::path& path) {
  static std::atomic<unsigned> counter{0};
  const std::string prefix = fmt::format(".{}.partial-", path.filename().string());
  remove_stale(path, prefix);
  return parent_of(path) / fmt::format("{}{}-{}", prefix, getpid(), counter++);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  Descriptor file{open_to_read(path)};
  struct stat info {};
  if (fstat(file.fd, &info) != 0) fail_errno(path, "read its size");
  if (!S_ISREG(info.st_mode)) fail(Exit::io, "{}: not a regular file", path.string());
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) fail_errno(path, "map");
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() {
  if (size_ > 0) munmap(const_cast<uint8_t*>(data_), size_);
}

std::string read_text(const fs::path& path, uint64_t limit) {
  Descriptor file{open_to_read(path)};
  struct stat info {};
  if (fstat(file.fd, &info) != 0) fail_errno(path, "read its size");
  if (S_ISDIR(info.st_mode)) fail(Exit::io, "{}: is a folder, not a file", path.string());
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    ssize_t n = read(file.fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "read");
    if (n == 0) return text;
    if (text.size() + static_cast<size_t>(n) > limit) {
      fail(Exit::bad_input, "{}: larger than the {} bytes that such a file may have", path.string(), limit);
    }
    if (text.empty() && info.st_size > n) text.reserve(std::min<uint64_t>(static_cast<uint64_t>(info.st_size), limit));
    text.append(buffer, static_cast<size_t>(n));
  }
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  create_folders(parent_of(path_));
  if (fs::is_directory(path_)) fail(Exit::io, "{}: is a folder, cannot write a file there", path_.string());
  temporary_ = temporary_beside(path_);
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(path_, "create");
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!committed_) unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path_, "write");
    bytes.remove_prefix(static_cast<size_t>(n));
    position_ += static_cast<uint64_t>(n);
  }
}

void AtomicFile::write(std::span<const uint8_t> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::commit() {
  if (fsync(fd_) != 0) fail_errno(path_, "fsync");
  const int closed = close(fd_);
  fd_ = -1;
  if (closed != 0) fail_errno(path_, "close");
  fsync_path(temporary_);  // a library that was given temporary() may have put another file there
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno(path_, "rename the finished file");
  committed_ = true;
  fsync_path(parent_of(path_));
}

void write_atomic(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void copy_atomic(const fs::path& from, const fs::path& to) {
  AtomicFile file(to);
  std::error_code error;
  fs::copy_file(from, file.temporary(), fs::copy_options::overwrite_existing, error);
  if (error) fail(Exit::io, "{}: cannot copy it to {}: {}", from.string(), to.string(), error.message());
  file.commit();
}

AtomicFolder::AtomicFolder(fs::path path) : path_(std::move(path)) {
  if (path_.filename().empty()) path_ = path_.parent_path();  // "a/b/" means "a/b"
  create_folders(parent_of(path_));
  temporary_ = temporary_beside(path_);
  create_folders(temporary_);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  // After a commit that replaced an older folder, the older one lies here.
  fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) {
    if (entry.is_symlink()) continue;
    if (entry.is_regular_file() || entry.is_directory()) fsync_path(entry.path());
  }
  fsync_path(temporary_);
  if (fs::exists(fs::symlink_status(path_))) {
    if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0) {
      // Not every file system can exchange two names; there a moment without the folder cannot be avoided.
      if (errno != EINVAL && errno != ENOSYS) fail_errno(path_, "exchange with the finished folder");
      const fs::path old = temporary_beside(path_);
      if (rename(path_.c_str(), old.c_str()) != 0) fail_errno(path_, "move the older folder away");
      if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno(path_, "rename the finished folder");
      temporary_ = old;
    }
  } else if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail_errno(path_, "rename the finished folder");
  }
  fsync_path(parent_of(path_));
}

FileLock::FileLock(const fs::path& path, bool wait) {
  create_folders(parent_of(path));
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno(path, "open the lock");
  while (flock(fd_, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    close(fd_);
    if (error == EWOULDBLOCK) fail(Exit::retry, "{}: another process holds this lock; try again later", path.string());
    fail_errno(path, "lock", error);
  }
}

FileLock::~FileLock() { close(fd_); }

fs::path cache_folder() {
  auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  fs::path folder = variable("RETORT_CACHE");
  if (folder.empty()) {
    fs::path base = variable("XDG_CACHE_HOME");
    if (base.empty()) {
      fs::path home = variable("HOME");
      if (home.empty()) {
        const passwd* user = getpwuid(getuid());
        if (!user) fail(Exit::io, "no folder for the cache: set RETORT_CACHE, XDG_CACHE_HOME or HOME");
        home = user->pw_dir;
      }
      base = home / ".cache";
    }
    folder = base / "retort";
  }
  folder = fs::absolute(folder);
  create_folders(folder);
  return folder;
}

void mark_used(const fs::path& path) {
  std::error_code ignored;  // a cache that belongs to somebody else serves all the same
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);
}

}  // namespace retort
