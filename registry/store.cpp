#include "registry/store.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// Shares the blocks with the original: no time and no space, on btrfs, XFS and others. Elsewhere an empty file is
/// left, which the copy writes: so it is made writable.
bool clone(const fs::path& from, const fs::path& to) {
  const int source = open(from.c_str(), O_RDONLY | O_CLOEXEC);
  const int target = open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool cloned = source >= 0 && target >= 0 && ioctl(target, FICLONE, source) == 0;
  if (source >= 0) close(source);
  if (target >= 0) close(target);
  return cloned;
}

void fsync_folder(const fs::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!done) fail(Exit::io, "{}: cannot fsync the folder: {}", folder.string(), std::strerror(error));
}

}  // namespace

fs::path artifact_path(const fs::path& folder, const std::string& sha256, const std::string& name) {
  return folder / "artifacts" / sha256 / name;
}

bool is_intact(const fs::path& path, const std::string& sha256) {
  std::error_code none;
  return fs::is_regular_file(path, none) && sha256_file(path) == sha256;
}

StoredArtifact store_artifact(const fs::path& folder, const fs::path& file) {
  if (!fs::is_regular_file(file)) fail(Exit::io, "{}: no such file, or not a regular one", file.string());
  StoredArtifact artifact{sha256_file(file), file.filename().string(), fs::file_size(file)};
  const fs::path place = folder / "artifacts" / artifact.sha256;
  std::error_code none;
  // The same bytes under another name are the same artifact.
  for (const auto& entry : fs::directory_iterator(place, none)) {
    if (!is_intact(entry.path(), artifact.sha256)) break;
    artifact.name = entry.path().filename().string();
    fsync_folder(place.parent_path());  // who put it there may have died before
    return artifact;
  }
  AtomicFolder fresh(place);
  const fs::path copy = fresh.temporary() / artifact.name;
  if (!clone(file, copy)) {
    std::error_code error;
    fs::copy_file(file, copy, fs::copy_options::overwrite_existing, error);
    if (error) fail(Exit::io, "{}: cannot copy it to {}: {}", file.string(), place.string(), error.message());
  }
  fs::permissions(copy, fs::perms::owner_read | fs::perms::group_read | fs::perms::others_read, none);
  if (!is_intact(copy, artifact.sha256))
    fail(Exit::io, "{}: changed while it was copied into the registry, or the disk fails", file.string());
  fresh.commit();        // fsyncs the copy, its folder and artifacts/
  fsync_folder(folder);  // in which artifacts/ may be new
  return artifact;
}

void point_link(const fs::path& link, const fs::path& target) {
  std::error_code error;
  const fs::path now = fs::read_symlink(link, error);
  if (!error && now == target) return;
  if (target.empty()) {
    fs::remove(link, error);
    return;
  }
  fs::create_directories(link.parent_path(), error);
  // Always under the files' lock, so one name is enough and a killed process leaves at most one.
  const fs::path fresh = link.parent_path() / fmt::format(".{}.new", link.filename().string());
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (error) fail(Exit::io, "{}: cannot point it to {}: {}", link.string(), target.string(), error.message());
  fsync_folder(link.parent_path());
}

}  // namespace retort
