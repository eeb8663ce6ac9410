#include "models/gguf.h"

#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "models/llama_runtime.h"

namespace retort {
namespace {

/// What ggml reads from, and how far it came: the offset of its last read is where a damaged file went wrong.
struct Source {
  std::span<const uint8_t> bytes;
  uint64_t last = 0;
};

size_t read_source(void* data, void* output, uint64_t offset, size_t size) {
  auto& source = *static_cast<Source*>(data);
  source.last = offset;
  if (offset >= source.bytes.size()) return 0;
  const size_t n = std::min<uint64_t>(size, source.bytes.size() - offset);
  std::memcpy(output, source.bytes.data() + offset, n);
  return n;
}

GgufContext parse(const MappedFile& file) {
  Source source{file.bytes()};
  LlamaCapture capture(true);
  GgufContext context(gguf_init_from_callback(read_source, &source, 0, file.bytes().size(), {true, nullptr}));
  if (!context)
    fail(Exit::bad_input, "{}: not a sound GGUF file: {} (near byte {} of {})", file.path().string(), capture.errors(),
         source.last, file.bytes().size());
  return context;
}

std::string type_label(const gguf_context* context, int64_t id) {
  const gguf_type type = gguf_get_kv_type(context, id);
  if (type != GGUF_TYPE_ARRAY) return gguf_type_name(type);
  return fmt::format("array of {}", gguf_type_name(gguf_get_arr_type(context, id)));
}

/// Element `i` of an array (or scalar) of integers; false when the element type is none.
bool integer_at(gguf_type type, const void* data, size_t i, int64_t& value) {
  const auto take = [&]<typename T>(T) {
    T element;
    std::memcpy(&element, static_cast<const uint8_t*>(data) + i * sizeof(T), sizeof(T));
    value = static_cast<int64_t>(element);
    return true;
  };
  switch (type) {
    case GGUF_TYPE_UINT8:
      return take(uint8_t{});
    case GGUF_TYPE_INT8:
      return take(int8_t{});
    case GGUF_TYPE_UINT16:
      return take(uint16_t{});
    case GGUF_TYPE_INT16:
      return take(int16_t{});
    case GGUF_TYPE_UINT32:
      return take(uint32_t{});
    case GGUF_TYPE_INT32:
      return take(int32_t{});
    case GGUF_TYPE_UINT64:
      return take(uint64_t{});
    case GGUF_TYPE_INT64:
      return take(int64_t{});
    default:
      return false;
  }
}

bool real_at(gguf_type type, const void* data, size_t i, double& value) {
  if (type == GGUF_TYPE_FLOAT32) {
    value = static_cast<const float*>(data)[i];
    return true;
  }
  if (type == GGUF_TYPE_FLOAT64) {
    std::memcpy(&value, static_cast<const uint8_t*>(data) + i * sizeof(double), sizeof value);
    return true;
  }
  return false;
}

}  // namespace

std::shared_ptr<const GgufFile> GgufFile::open(const std::filesystem::path& path) {
  std::shared_ptr<GgufFile> gguf(new GgufFile);
  gguf->file_ = MappedFile::open(path);
  gguf->context_ = parse(*gguf->file_);
  const gguf_context* context = gguf->context_.get();
  const std::string where = path.string();
  if (gguf->has("split.count") && gguf->integer("split.count") > 1)
    fail(Exit::bad_input,
         "{}: part {} of {} of a split model; join the parts first: llama-gguf-split --merge {} OUT.gguf", where,
         gguf->integer("split.no", 0) + 1, gguf->integer("split.count"), where);
  const size_t alignment = gguf_get_alignment(context);
  if (alignment % 8 != 0)
    fail(Exit::bad_input, "{}: key \"general.alignment\": {}, allowed: a power of two from 8", where, alignment);

  const uint64_t size = gguf->size();
  const uint64_t data = gguf_get_data_offset(context);
  const int64_t count = gguf_get_n_tensors(context);
  gguf->tensors_.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const std::string name = gguf_get_tensor_name(context, i);
    const uint64_t begin = data + gguf_get_tensor_offset(context, i);
    const uint64_t bytes = gguf_get_tensor_size(context, i);
    if (begin > size || bytes > size - begin)
      fail(Exit::bad_input, "{}: tensor {}: {} bytes from byte {}, but the file ends at byte {} (cut short?)", where,
           name, bytes, begin, size);
    const int64_t* ne = gguf_get_tensor_ne(context, i);
    size_t dimensions = GGML_MAX_DIMS;
    while (dimensions > 1 && ne[dimensions - 1] == 1) --dimensions;
    std::vector<int64_t> shape(ne, ne + dimensions);
    std::reverse(shape.begin(), shape.end());
    try {
      gguf->tensors_.emplace_back(name, gguf_get_tensor_type(context, i), std::move(shape),
                                  gguf->file_->bytes().subspan(begin, bytes), gguf->file_);
    } catch (const Error& error) {
      fail(error.exit(), "{}: {}", where, error.what());
    }
    gguf->index_.emplace(name, static_cast<size_t>(i));
  }
  return gguf;
}

std::vector<std::string> GgufFile::keys() const {
  std::vector<std::string> keys;
  for (int64_t i = 0; i < gguf_get_n_kv(context_.get()); ++i) keys.emplace_back(gguf_get_key(context_.get(), i));
  return keys;
}

const QuantizedTensor* GgufFile::find(const std::string& name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

int64_t GgufFile::find_key(const std::string& key) const {
  const int64_t id = gguf_find_key(context_.get(), key.c_str());
  if (id < 0) fail(Exit::bad_input, "{}: key \"{}\" is missing", path().string(), key);
  return id;
}

void GgufFile::refuse_type(const std::string& key, int64_t id, const char* wanted) const {
  fail(Exit::bad_input, "{}: key \"{}\" is of type {}, expected {}", path().string(), key,
       type_label(context_.get(), id), wanted);
}

std::string GgufFile::text(const std::string& key) const {
  const int64_t id = find_key(key);
  if (gguf_get_kv_type(context_.get(), id) != GGUF_TYPE_STRING) refuse_type(key, id, "string");
  return gguf_get_val_str(context_.get(), id);
}

int64_t GgufFile::integer(const std::string& key) const {
  const int64_t id = find_key(key);
  const gguf_type type = gguf_get_kv_type(context_.get(), id);
  int64_t value = 0;
  if (type == GGUF_TYPE_STRING || type == GGUF_TYPE_ARRAY ||
      !integer_at(type, gguf_get_val_data(context_.get(), id), 0, value))
    refuse_type(key, id, "an integer");
  return value;
}

double GgufFile::real(const std::string& key) const {
  const int64_t id = find_key(key);
  const gguf_type type = gguf_get_kv_type(context_.get(), id);
  double value = 0;
  if (type == GGUF_TYPE_STRING || type == GGUF_TYPE_ARRAY ||
      !real_at(type, gguf_get_val_data(context_.get(), id), 0, value))
    refuse_type(key, id, "f32");
  if (!std::isfinite(value))
    fail(Exit::bad_input, "{}: key \"{}\" is {}, expected a finite number", path().string(), key, value);
  return value;
}

bool GgufFile::boolean(const std::string& key) const {
  const int64_t id = find_key(key);
  if (gguf_get_kv_type(context_.get(), id) != GGUF_TYPE_BOOL) refuse_type(key, id, "bool");
  return *static_cast<const int8_t*>(gguf_get_val_data(context_.get(), id)) != 0;
}

std::vector<std::string> GgufFile::texts(const std::string& key) const {
  const int64_t id = find_key(key);
  if (gguf_get_kv_type(context_.get(), id) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(context_.get(), id) != GGUF_TYPE_STRING)
    refuse_type(key, id, "array of str");
  std::vector<std::string> values(gguf_get_arr_n(context_.get(), id));
  for (size_t i = 0; i < values.size(); ++i) values[i] = gguf_get_arr_str(context_.get(), id, i);
  return values;
}

std::vector<int64_t> GgufFile::integers(const std::string& key) const {
  const int64_t id = find_key(key);
  if (gguf_get_kv_type(context_.get(), id) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(context_.get(), id) == GGUF_TYPE_STRING)
    refuse_type(key, id, "array of integers");
  const gguf_type type = gguf_get_arr_type(context_.get(), id);
  const void* data = gguf_get_arr_data(context_.get(), id);
  std::vector<int64_t> values(gguf_get_arr_n(context_.get(), id));
  for (size_t i = 0; i < values.size(); ++i)
    if (!integer_at(type, data, i, values[i])) refuse_type(key, id, "array of integers");
  return values;
}

std::vector<float> GgufFile::reals(const std::string& key) const {
  const int64_t id = find_key(key);
  if (gguf_get_kv_type(context_.get(), id) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(context_.get(), id) != GGUF_TYPE_FLOAT32)
    refuse_type(key, id, "array of f32");
  const auto* data = static_cast<const float*>(gguf_get_arr_data(context_.get(), id));
  return {data, data + gguf_get_arr_n(context_.get(), id)};
}

std::string GgufFile::text(const std::string& key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}
int64_t GgufFile::integer(const std::string& key, int64_t otherwise) const {
  return has(key) ? integer(key) : otherwise;
}
double GgufFile::real(const std::string& key, double otherwise) const { return has(key) ? real(key) : otherwise; }
bool GgufFile::boolean(const std::string& key, bool otherwise) const { return has(key) ? boolean(key) : otherwise; }

}  // namespace retort
