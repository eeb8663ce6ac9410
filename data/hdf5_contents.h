// What a sealed HDF5 file holds, for people: its arrays and attributes, without their values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace retort {

struct Hdf5Array {
  std::string name;
  std::string type;  ///< "int32", "uint8", "float32"; "other" for what this program does not write
  std::vector<int64_t> shape;
  int64_t stored_bytes = 0;  ///< in the file, after compression
};

struct Hdf5Contents {
  std::vector<Hdf5Array> arrays;
  std::map<std::string, std::string> attributes;
};

/// Checks the seal first: a damaged file, or one that this program did not write, is refused with Error(bad_input)
/// before the HDF5 library sees it.
Hdf5Contents hdf5_contents(const std::filesystem::path& path);

}  // namespace retort
