// Files out of wheels and packages, through libarchive.
#include <archive.h>
#include <archive_entry.h>

#include <memory>

#include "core/error.h"
#include "core/files.h"
#include "core/source_kind.h"

namespace retort {

void extract_entry(const std::filesystem::path& archive, const std::string& wanted, const std::filesystem::path& to,
                   const std::string& shown) {
  std::unique_ptr<struct archive, decltype(&archive_read_free)> reader(archive_read_new(), archive_read_free);
  // A wrong checksum is only a warning to libarchive; about names it warns without need.
  auto check = [&](la_ssize_t status, la_ssize_t allowed) {
    if (status >= allowed) return;
    const char* text = archive_error_string(reader.get());
    fail(Exit::bad_input, "{}: {} is damaged: {}", shown, archive.filename().string(), text ? text : "unknown error");
  };
  archive_read_support_format_zip_seekable(reader.get());
  archive_read_support_format_tar(reader.get());
  check(archive_read_open_filename(reader.get(), archive.c_str(), 1 << 16), ARCHIVE_OK);
  for (archive_entry* entry = nullptr;;) {
    const int status = archive_read_next_header(reader.get(), &entry);
    if (status == ARCHIVE_EOF) {
      fail(Exit::unavailable, "{}: {} holds no file {}", shown, archive.filename().string(), wanted);
    }
    check(status, ARCHIVE_WARN);
    const char* path = archive_entry_pathname(entry);
    std::string_view name = path ? path : "";
    if (name.starts_with("./")) name.remove_prefix(2);
    if (name != wanted) continue;
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry)) {
      const char* target = archive_entry_symlink(entry);
      if (!target) target = archive_entry_hardlink(entry);
      fail(Exit::unavailable, "{}: {} is not a regular file{}", shown, wanted,
           target ? fmt::format(" but a link to {}; name that one", target) : "");
    }
    AtomicFile file(to);
    for (;;) {
      const void* data = nullptr;
      size_t size = 0;
      la_int64_t offset = 0;
      const int block = archive_read_data_block(reader.get(), &data, &size, &offset);
      if (block == ARCHIVE_EOF) break;
      check(block, ARCHIVE_OK);
      if (static_cast<uint64_t>(offset) != file.position()) {
        fail(Exit::bad_input, "{}: {} has a hole at byte {}", shown, wanted, file.position());
      }
      file.write(std::string_view(static_cast<const char*>(data), size));
    }
    if (archive_entry_size_is_set(entry) && static_cast<uint64_t>(archive_entry_size(entry)) != file.position()) {
      fail(Exit::bad_input, "{}: {} should have {} bytes, the archive gave {}", shown, wanted,
           archive_entry_size(entry), file.position());
    }
    file.commit();
    return;
  }
}

}  // namespace retort
