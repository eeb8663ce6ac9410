// dictzip: gzip whose extra field lists independently compressed chunks, so that any part can be read alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/files.h"

namespace retort {

/// A DICT database's text, plain (.dict) or dictzip (.dict.dz), read by offset. Memory is one chunk (at most 64 KiB).
class DictText {
 public:
  /// Checks a dictzip file wholly: header, every chunk, length and CRC-32. Error(bad_input) with file and offset.
  explicit DictText(const std::filesystem::path& path);
  uint64_t size() const { return size_; }
  /// Error(bad_input) when the range leaves the text.
  std::string read(uint64_t offset, uint64_t size);

 private:
  void read_header();
  void check_chunks();
  void inflate_chunk(size_t chunk);

  std::shared_ptr<const MappedFile> file_;
  std::string name_;
  uint64_t size_ = 0;
  uint64_t chunk_bytes_ = 0;      ///< 0: the file is plain
  std::vector<uint64_t> starts_;  ///< of the chunks in the file, and where the last one ends
  size_t inflated_ = SIZE_MAX;    ///< which chunk chunk_ holds
  std::string chunk_;
};

}  // namespace retort
