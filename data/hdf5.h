// HDF5 files that grow by appending: chunked, checksummed (Fletcher32), sealed by a hash of the whole file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace retort {

/// One open file. The first 512 bytes are HDF5's user block: seal() writes the XXH3 of all bytes after it there, and
/// open() compares it before the HDF5 library sees the file, so a truncated or flipped file is refused and never
/// parsed. The HDF5 library is not thread-safe; all calls here take one lock a process. Errors: Error(io) for writing,
/// Error(bad_input) naming the file for reading.
class Hdf5File {
 public:
  static Hdf5File create(const std::filesystem::path& path);
  /// `verify`: read the whole file once and compare the seal. Without it only its presence and the file's size are
  /// checked, and damage shows when a chunk's checksum fails.
  static Hdf5File open(const std::filesystem::path& path, bool verify = true);
  ~Hdf5File();
  Hdf5File(Hdf5File&&) noexcept;

  /// An empty array [0, columns] ([0] when columns is 1) of T in {uint8_t, uint16_t, int32_t, int64_t, float}; a chunk
  /// holds `chunk_rows` rows and is the unit of reading.
  template <typename T>
  void create_array(const std::string& name, int64_t columns = 1, int64_t chunk_rows = 16384);
  template <typename T>
  void append(const std::string& name, std::span<const T> values);
  /// Rows and columns; Error(bad_input) when the array is missing or of another type or rank.
  template <typename T>
  void expect_array(const std::string& name, int64_t rows, int64_t columns) const;
  int64_t rows(const std::string& name) const;
  /// Rows [first, first + values.size() / columns).
  template <typename T>
  void read(const std::string& name, int64_t first, std::span<T> values) const;

  void write_attribute(const std::string& name, const std::string& value);
  std::string attribute(const std::string& name) const;

  /// Closes the file that create() made and writes its seal.
  void seal();
  /// The seal's text: hash and size of the file. Error(bad_input) when there is none or it does not read.
  static std::string seal_of(const std::filesystem::path& path);

 private:
  struct Impl;
  explicit Hdf5File(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace retort
