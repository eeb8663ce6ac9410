// GGUF files: a checked, read-only view of a mapped file, and a writer that streams tensors into an atomic file.
// The container is parsed and written by ggml's own gguf_* functions; this adds bounds, types and errors that say
// where.
#pragma once

#include <gguf.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/files.h"
#include "quant/quantized_tensor.h"

namespace retort {

struct GgufDeleter {
  void operator()(gguf_context* context) const { gguf_free(context); }
};
using GgufContext = std::unique_ptr<gguf_context, GgufDeleter>;

/// A GGUF file. Every error is Error(bad_input) and names the file and the key, tensor or offset.
class GgufFile {
 public:
  /// Maps and validates the whole container: header, keys, tensor types, shapes and offsets against the file's size.
  /// A part of a split model is refused.
  static std::shared_ptr<const GgufFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  uint64_t size() const { return file_->bytes().size(); }
  /// ggml's view of the metadata, for what has no accessor here.
  const gguf_context* context() const { return context_.get(); }

  bool has(const std::string& key) const { return gguf_find_key(context_.get(), key.c_str()) >= 0; }
  std::vector<std::string> keys() const;
  /// The value of `key`. integer() takes every integer type, real() both float types; arrays of those for the plurals.
  std::string text(const std::string& key) const;
  int64_t integer(const std::string& key) const;
  double real(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;
  std::vector<float> reals(const std::string& key) const;
  /// The same, or `otherwise` when there is no such key; a wrong type is an error all the same.
  std::string text(const std::string& key, const std::string& otherwise) const;
  int64_t integer(const std::string& key, int64_t otherwise) const;
  double real(const std::string& key, double otherwise) const;
  bool boolean(const std::string& key, bool otherwise) const;

  /// In the file's order and under its names; shapes in torch's order, with leading ones dropped (the container does
  /// not tell [1, n] from [n]).
  const std::vector<QuantizedTensor>& tensors() const { return tensors_; }
  /// nullptr when there is none.
  const QuantizedTensor* find(const std::string& name) const;

 private:
  GgufFile() = default;
  int64_t find_key(const std::string& key) const;
  [[noreturn]] void refuse_type(const std::string& key, int64_t id, const char* wanted) const;

  std::shared_ptr<const MappedFile> file_;
  GgufContext context_;
  std::vector<QuantizedTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

/// Writes one GGUF file: set keys, add() every tensor, begin(), write() their bytes in that order, commit().
/// Only one tensor's bytes need to be in memory at a time.
class GgufWriter {
 public:
  GgufWriter() : context_(gguf_init_empty()) {}

  /// All keys of `file` but those of the container itself (general.alignment, split.*).
  void copy_metadata(const GgufFile& file);
  /// Keys may be set again; an empty key or an embedded NUL is an Error(internal).
  void set_text(const std::string& key, const std::string& value);
  void set_u32(const std::string& key, int64_t value);
  void set_f32(const std::string& key, double value);
  void set_bool(const std::string& key, bool value);
  void set_texts(const std::string& key, const std::vector<std::string>& values);
  void set_i32s(const std::string& key, std::span<const int32_t> values);
  void set_f32s(const std::string& key, std::span<const float> values);
  void remove(const std::string& key) { gguf_remove_key(context_.get(), key.c_str()); }
  bool has(const std::string& key) const { return gguf_find_key(context_.get(), key.c_str()) >= 0; }

  /// Announces a tensor; `shape` in torch's order. Returns the bytes it takes.
  uint64_t add(const std::string& name, int ggml_type, std::span<const int64_t> shape);
  /// Creates the file (under a temporary name) and writes the header.
  void begin(const std::filesystem::path& path);
  /// The bytes of the next tensor; `name` must be the one announced next, with as many bytes as add() returned.
  void write(const std::string& name, std::span<const uint8_t> bytes);
  /// Gives the file its name; every tensor must have been written. Returns the file's size.
  uint64_t commit();

 private:
  GgufContext context_;
  std::optional<AtomicFile> file_;
  int64_t next_ = 0;
};

}  // namespace retort
