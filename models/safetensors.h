// safetensors files: a checked, mapped reader and an atomic writer whose bytes equal the reference writer's.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/files.h"

namespace retort {

/// One entry of the header; `bytes` point into the mapped file.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as in the header: "BF16"
  at::ScalarType type;
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;
};

class SafetensorsFile {
 public:
  /// Maps and validates the whole container: header length (at most 100 MB), JSON, dtypes, shapes against byte ranges,
  /// ranges in the file without overlap or gap. Error(bad_input) names file, tensor, found, allowed.
  static std::shared_ptr<const SafetensorsFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  uint64_t size() const { return file_->bytes().size(); }
  /// In the order of their bytes in the file.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsEntry* find(const std::string& name) const;
  /// A tensor over the mapped bytes, which it keeps alive (a copy when the file left them unaligned). Read-only by
  /// contract: the mapping is private, but writing to it would copy pages. Error(bad_input) when there is none.
  at::Tensor tensor(const std::string& name) const;
  /// tensor(), of which only floating types of 16 bits or more and finite numbers are accepted: what an adapter's file
  /// may hold. Error(bad_input) names the tensor otherwise.
  at::Tensor weights(const std::string& name) const;
  /// The mapping, for views that outlive this object.
  std::shared_ptr<const MappedFile> file() const { return file_; }

 private:
  SafetensorsFile() = default;
  std::shared_ptr<const MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string, size_t> index_;
};

/// Writes the tensors (any device, made contiguous one at a time) ordered by dtype descending, then name, as the
/// reference writer does; the header is padded to 8 bytes. Atomic.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace retort
