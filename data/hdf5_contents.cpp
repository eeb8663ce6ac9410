#include "data/hdf5_contents.h"

#include <hdf5.h>

#include "core/error.h"
#include "data/hdf5.h"

namespace retort {
namespace {

std::string type_name(hid_t array) {
  const hid_t type = H5Dget_type(array);
  const H5T_class_t kind = H5Tget_class(type);
  const size_t bits = 8 * H5Tget_size(type);
  const bool is_signed = kind == H5T_INTEGER && H5Tget_sign(type) == H5T_SGN_2;
  H5Tclose(type);
  if (kind == H5T_INTEGER) return fmt::format("{}int{}", is_signed ? "" : "u", bits);
  return kind == H5T_FLOAT ? fmt::format("float{}", bits) : "other";
}

/// Called by H5Literate for each link of the root group: C code, so nothing may throw through it.
herr_t take_array(hid_t group, const char* name, const H5L_info_t*, void* data) {
  H5O_info_t info;
  if (H5Oget_info_by_name2(group, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) return -1;
  if (info.type != H5O_TYPE_DATASET) return 0;
  const hid_t array = H5Dopen2(group, name, H5P_DEFAULT);
  if (array < 0) return -1;
  const hid_t space = H5Dget_space(array);
  std::vector<hsize_t> shape(static_cast<size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
  H5Sget_simple_extent_dims(space, shape.data(), nullptr);
  static_cast<Hdf5Contents*>(data)->arrays.push_back(
      {name, type_name(array), {shape.begin(), shape.end()}, static_cast<int64_t>(H5Dget_storage_size(array))});
  H5Sclose(space);
  H5Dclose(array);
  return 0;
}

herr_t take_name(hid_t, const char* name, const H5A_info_t*, void* data) {
  static_cast<std::vector<std::string>*>(data)->emplace_back(name);
  return 0;
}

}  // namespace

Hdf5Contents hdf5_contents(const std::filesystem::path& path) {
  Hdf5Contents contents;
  std::vector<std::string> names;
  const Hdf5File sealed = Hdf5File::open(path);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file < 0) fail(Exit::bad_input, "{}: the HDF5 library cannot open it", path.string());
  const bool listed = H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, nullptr, take_array, &contents) >= 0 &&
                      H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_INC, nullptr, take_name, &names) >= 0;
  H5Fclose(file);
  if (!listed) fail(Exit::bad_input, "{}: its arrays cannot be listed", path.string());
  for (const std::string& name : names) contents.attributes[name] = sealed.attribute(name);
  return contents;
}

}  // namespace retort
