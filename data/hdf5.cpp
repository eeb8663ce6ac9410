#include "data/hdf5.h"

#include <hdf5.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/hash.h"

namespace retort {
namespace {

constexpr size_t user_block = 512;
constexpr std::string_view magic = "RETORT-HDF5-1 ";

std::recursive_mutex& library() {
  static std::recursive_mutex mutex;
  // Its clean-up at exit flushes again what a full disk refused, and crashes on it. Every file is closed here.
  static const herr_t no_clean_up = H5dont_atexit();
  (void)no_clean_up;
  return mutex;
}

template <typename T>
hid_t memory_type() {
  if constexpr (std::is_same_v<T, uint8_t>)
    return H5T_NATIVE_UINT8;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return H5T_NATIVE_UINT16;
  else if constexpr (std::is_same_v<T, int32_t>)
    return H5T_NATIVE_INT32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return H5T_NATIVE_INT64;
  else
    return H5T_NATIVE_FLOAT;
}

/// The innermost message on HDF5's error stack: the one that names the cause.
std::string reason() {
  std::string text = "no reason given";
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned level, const H5E_error2_t* error, void* out) -> herr_t {
        if (level == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  return text;
}

/// An HDF5 identifier that closes itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  bool valid() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

std::string seal_text(uint64_t hash, uint64_t bytes) {
  return fmt::format("{}xxh3 {:016x} bytes {}\n", magic, hash, bytes);
}

/// XXH3 of everything after the user block, a block at a time: each block's hash is the next one's seed. Read, not
/// mapped: mapped pages would count as this process's memory.
uint64_t hash_body(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(user_block);
  std::vector<char> block(size_t{1} << 20);
  uint64_t hash = 0;
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0)
    hash = xxh3({block.data(), static_cast<size_t>(file.gcount())}, hash);
  if (file.bad() || !file.eof()) fail(Exit::io, "{}: cannot read: {}", path.string(), std::strerror(errno));
  return hash;
}

/// The seal's text without its newline, and what it says.
struct Seal {
  std::string text;
  uint64_t hash = 0, bytes = 0;
};

Seal read_seal(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) fail(Exit::io, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  std::string found(user_block, '\0');
  file.read(found.data(), user_block);
  if (bytes <= user_block || !found.starts_with(magic))
    fail(Exit::bad_input, "{}: not a sealed HDF5 file of this program ({} bytes)", path.string(), bytes);
  Seal seal{found.substr(0, found.find('\0'))};
  if (std::sscanf(seal.text.c_str(), "RETORT-HDF5-1 xxh3 %16lx bytes %lu", &seal.hash, &seal.bytes) != 2 ||
      seal.text != seal_text(seal.hash, seal.bytes) ||
      found.find_first_not_of('\0', seal.text.size()) != std::string::npos)
    fail(Exit::bad_input, "{}: the file's seal does not read; the file is damaged", path.string());
  seal.text.pop_back();
  if (seal.bytes != bytes)
    fail(Exit::bad_input, "{}: the file has {} bytes, its seal says {}: it was cut or grew after it was written",
         path.string(), bytes, seal.bytes);
  return seal;
}

void check_seal(const std::filesystem::path& path, bool verify) {
  const Seal seal = read_seal(path);
  if (!verify) return;
  uint64_t actual = hash_body(path);
  if (actual != seal.hash)
    fail(Exit::bad_input, "{}: checksum {:016x} does not match the file's seal {:016x}; the file is damaged",
         path.string(), actual, seal.hash);
}

}  // namespace

struct Hdf5File::Impl {
  struct Array {
    Handle id;
    int64_t rows, columns;
    int rank;
  };
  std::filesystem::path path;
  bool writing;
  std::map<std::string, Array> arrays;
  Handle file;  // after `arrays`, so that it closes first: HDF5 keeps it alive until they are closed

  Array& array(const std::string& name) {
    if (auto it = arrays.find(name); it != arrays.end()) return it->second;
    Handle id(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose);
    if (!id.valid()) fail(Exit::bad_input, "{}: the array \"{}\" is missing: {}", path.string(), name, reason());
    Handle space(H5Dget_space(id), H5Sclose);
    hsize_t shape[2] = {0, 1};
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank != 1 && rank != 2) fail(Exit::bad_input, "{}: the array \"{}\" has rank {}", path.string(), name, rank);
    H5Sget_simple_extent_dims(space, shape, nullptr);
    // Nothing here compresses, so no array is greater than its file, and readers may make room for what a shape claims.
    const Handle type(H5Dget_type(id), H5Tclose);
    const uint64_t bytes = std::filesystem::file_size(path), numbers = bytes / std::max<size_t>(1, H5Tget_size(type));
    if (shape[1] == 0 || shape[0] > numbers / shape[1])
      fail(Exit::bad_input, "{}: the array \"{}\" says that it is [{}, {}], which no file of {} bytes holds",
           path.string(), name, shape[0], shape[1], bytes);
    return arrays.try_emplace(name, Array{std::move(id), int64_t(shape[0]), int64_t(shape[1]), rank}).first->second;
  }

  /// Reads or writes whole rows [first, first + rows).
  template <typename T, typename Transfer>
  void transfer(Array& array, const std::string& name, int64_t first, int64_t rows, Transfer&& move) {
    hsize_t start[2] = {hsize_t(first), 0}, count[2] = {hsize_t(rows), hsize_t(array.columns)};
    Handle space(H5Dget_space(array.id), H5Sclose);
    Handle memory(H5Screate_simple(array.rank, count, nullptr), H5Sclose);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr);
    if (move(memory_type<T>(), memory, space) < 0)
      fail(writing ? Exit::io : Exit::bad_input, "{}: {} rows {}..{} of \"{}\": {}", path.string(),
           writing ? "cannot write" : "cannot read", first, first + rows, name, reason());
  }
};

Hdf5File::Hdf5File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Hdf5File::Hdf5File(Hdf5File&&) noexcept = default;
Hdf5File::~Hdf5File() {
  std::lock_guard lock(library());
  impl_.reset();
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  std::lock_guard lock(library());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_userblock(creation, user_block);
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, H5P_DEFAULT), H5Fclose);
  if (!file.valid()) fail(Exit::io, "{}: cannot create the HDF5 file: {}", path.string(), reason());
  return Hdf5File(std::unique_ptr<Impl>(new Impl{path, true, {}, std::move(file)}));
}

Hdf5File Hdf5File::open(const std::filesystem::path& path, bool verify) {
  check_seal(path, verify);
  std::lock_guard lock(library());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.valid()) fail(Exit::bad_input, "{}: not a readable HDF5 file: {}", path.string(), reason());
  return Hdf5File(std::unique_ptr<Impl>(new Impl{path, false, {}, std::move(file)}));
}

template <typename T>
void Hdf5File::create_array(const std::string& name, int64_t columns, int64_t chunk_rows) {
  std::lock_guard lock(library());
  int rank = columns == 1 ? 1 : 2;
  hsize_t shape[2] = {0, hsize_t(columns)}, limit[2] = {H5S_UNLIMITED, hsize_t(columns)};
  hsize_t chunk[2] = {hsize_t(chunk_rows), hsize_t(columns)};
  Handle space(H5Screate_simple(rank, shape, limit), H5Sclose);
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(creation, rank, chunk);
  H5Pset_fletcher32(creation);
  Handle id(H5Dcreate2(impl_->file, name.c_str(), memory_type<T>(), space, H5P_DEFAULT, creation, H5P_DEFAULT),
            H5Dclose);
  if (!id.valid()) fail(Exit::io, "{}: cannot create the array \"{}\": {}", impl_->path.string(), name, reason());
  impl_->arrays.try_emplace(name, Impl::Array{std::move(id), 0, columns, rank});
}

template <typename T>
void Hdf5File::append(const std::string& name, std::span<const T> values) {
  std::lock_guard lock(library());
  Impl::Array& array = impl_->array(name);
  int64_t rows = static_cast<int64_t>(values.size()) / array.columns;
  if (rows == 0) return;
  hsize_t shape[2] = {hsize_t(array.rows + rows), hsize_t(array.columns)};
  if (H5Dset_extent(array.id, shape) < 0)
    fail(Exit::io, "{}: cannot extend \"{}\": {}", impl_->path.string(), name, reason());
  impl_->transfer<T>(array, name, array.rows, rows, [&](hid_t type, hid_t memory, hid_t space) {
    return H5Dwrite(array.id, type, memory, space, H5P_DEFAULT, values.data());
  });
  array.rows += rows;
}

template <typename T>
void Hdf5File::expect_array(const std::string& name, int64_t rows, int64_t columns) const {
  std::lock_guard lock(library());
  const Impl::Array& array = impl_->array(name);
  Handle type(H5Dget_type(array.id), H5Tclose);
  if (H5Tequal(type, memory_type<T>()) <= 0)
    fail(Exit::bad_input, "{}: the array \"{}\" holds another type of number than expected", impl_->path.string(),
         name);
  if (array.rows != rows || array.columns != columns)
    fail(Exit::bad_input, "{}: the array \"{}\" is [{}, {}], expected [{}, {}]", impl_->path.string(), name, array.rows,
         array.columns, rows, columns);
}

int64_t Hdf5File::rows(const std::string& name) const {
  std::lock_guard lock(library());
  return impl_->array(name).rows;
}

template <typename T>
void Hdf5File::read(const std::string& name, int64_t first, std::span<T> values) const {
  std::lock_guard lock(library());
  Impl::Array& array = impl_->array(name);
  int64_t rows = static_cast<int64_t>(values.size()) / array.columns;
  if (first < 0 || first + rows > array.rows)
    fail(Exit::bad_input, "{}: rows {}..{} of \"{}\" are wanted, it has {}", impl_->path.string(), first, first + rows,
         name, array.rows);
  if (rows == 0) return;
  impl_->transfer<T>(array, name, first, rows, [&](hid_t type, hid_t memory, hid_t space) {
    return H5Dread(array.id, type, memory, space, H5P_DEFAULT, values.data());
  });
}

void Hdf5File::write_attribute(const std::string& name, const std::string& value) {
  std::lock_guard lock(library());
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<size_t>(1, value.size()));
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle id(H5Acreate2(impl_->file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!id.valid() || H5Awrite(id, type, value.empty() ? "\0" : value.data()) < 0)
    fail(Exit::io, "{}: cannot write the attribute \"{}\": {}", impl_->path.string(), name, reason());
}

std::string Hdf5File::attribute(const std::string& name) const {
  std::lock_guard lock(library());
  Handle id(H5Aopen(impl_->file, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!id.valid()) fail(Exit::bad_input, "{}: the attribute \"{}\" is missing", impl_->path.string(), name);
  Handle type(H5Aget_type(id), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0)
    fail(Exit::bad_input, "{}: the attribute \"{}\" is no text of fixed size", impl_->path.string(), name);
  std::string value(H5Tget_size(type), '\0');
  if (H5Aread(id, type, value.data()) < 0)
    fail(Exit::bad_input, "{}: cannot read the attribute \"{}\": {}", impl_->path.string(), name, reason());
  return value.substr(0, value.find('\0'));
}

void Hdf5File::seal() {
  std::filesystem::path path = impl_->path;
  {
    std::lock_guard lock(library());
    impl_->arrays.clear();
    if (H5Fflush(impl_->file, H5F_SCOPE_GLOBAL) < 0) fail(Exit::io, "{}: cannot write: {}", path.string(), reason());
    impl_.reset();
  }
  std::string text = seal_text(hash_body(path), std::filesystem::file_size(path));
  std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
  out << text << std::string(user_block - text.size(), '\0') << std::flush;
  if (!out) fail(Exit::io, "{}: cannot write the seal: {}", path.string(), std::strerror(errno));
}

std::string Hdf5File::seal_of(const std::filesystem::path& path) { return read_seal(path).text; }

#define INSTANTIATE(T)                                                                 \
  template void Hdf5File::create_array<T>(const std::string&, int64_t, int64_t);       \
  template void Hdf5File::append<T>(const std::string&, std::span<const T>);           \
  template void Hdf5File::expect_array<T>(const std::string&, int64_t, int64_t) const; \
  template void Hdf5File::read<T>(const std::string&, int64_t, std::span<T>) const;
INSTANTIATE(uint8_t)
INSTANTIATE(uint16_t)
INSTANTIATE(int32_t)
INSTANTIATE(int64_t)
INSTANTIATE(float)
#undef INSTANTIATE

}  // namespace retort
