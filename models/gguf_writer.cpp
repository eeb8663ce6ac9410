#include <ggml.h>

#include <limits>

#include "core/error.h"
#include "models/gguf.h"

namespace retort {
namespace {

/// ggml aborts the process on an empty key and cuts strings at a NUL.
const char* checked(const std::string& text, const char* what) {
  if (text.find('\0') != std::string::npos)
    fail(Exit::internal, "GGUF {} with a NUL character: \"{}\"", what, text.c_str());
  return text.c_str();
}

const char* checked_key(const std::string& key) {
  if (key.empty()) fail(Exit::internal, "an empty GGUF key");
  return checked(key, "key");
}

uint64_t padding(uint64_t size, uint64_t alignment) { return (alignment - size % alignment) % alignment; }

}  // namespace

void GgufWriter::copy_metadata(const GgufFile& file) {
  gguf_set_kv(context_.get(), file.context());
  for (const std::string& key : file.keys())
    if (key == "general.alignment" || key.starts_with("split.")) remove(key);
}

void GgufWriter::set_text(const std::string& key, const std::string& value) {
  gguf_set_val_str(context_.get(), checked_key(key), checked(value, "value"));
}

void GgufWriter::set_u32(const std::string& key, int64_t value) {
  if (value < 0 || value > std::numeric_limits<uint32_t>::max())
    fail(Exit::internal, "GGUF key \"{}\": {} is no u32", key, value);
  gguf_set_val_u32(context_.get(), checked_key(key), static_cast<uint32_t>(value));
}

void GgufWriter::set_f32(const std::string& key, double value) {
  gguf_set_val_f32(context_.get(), checked_key(key), static_cast<float>(value));
}

void GgufWriter::set_bool(const std::string& key, bool value) {
  gguf_set_val_bool(context_.get(), checked_key(key), value);
}

void GgufWriter::set_texts(const std::string& key, const std::vector<std::string>& values) {
  std::vector<const char*> pointers;
  pointers.reserve(values.size());
  for (const std::string& value : values) pointers.push_back(checked(value, "array element"));
  gguf_set_arr_str(context_.get(), checked_key(key), pointers.data(), pointers.size());
}

void GgufWriter::set_i32s(const std::string& key, std::span<const int32_t> values) {
  gguf_set_arr_data(context_.get(), checked_key(key), GGUF_TYPE_INT32, values.data(), values.size());
}

void GgufWriter::set_f32s(const std::string& key, std::span<const float> values) {
  gguf_set_arr_data(context_.get(), checked_key(key), GGUF_TYPE_FLOAT32, values.data(), values.size());
}

uint64_t GgufWriter::add(const std::string& name, int ggml_type, std::span<const int64_t> shape) {
  if (file_) fail(Exit::internal, "GGUF tensor {} added after the header was written", name);
  if (name.empty() || name.size() >= GGML_MAX_NAME)
    fail(Exit::bad_input, "GGUF tensor name \"{}\" has {} bytes, allowed: 1 to {}", name, name.size(),
         GGML_MAX_NAME - 1);
  if (gguf_find_tensor(context_.get(), checked(name, "tensor name")) >= 0)
    fail(Exit::internal, "GGUF tensor {} added twice", name);
  if (shape.empty() || shape.size() > GGML_MAX_DIMS)
    fail(Exit::internal, "GGUF tensor {} has {} dimensions, allowed: 1 to {}", name, shape.size(), GGML_MAX_DIMS);
  const auto type = static_cast<enum ggml_type>(ggml_type);
  if (shape.back() % ggml_blck_size(type) != 0)
    fail(Exit::bad_input, "GGUF tensor {}: rows of {} are not whole blocks of {} ({})", name, shape.back(),
         ggml_blck_size(type), ggml_type_label(ggml_type));
  const std::vector<int64_t> ne(shape.rbegin(), shape.rend());  // the container's order: fastest dimension first
  ggml_context* scratch = ggml_init({ggml_tensor_overhead(), nullptr, true});
  ggml_tensor* tensor = ggml_new_tensor(scratch, type, static_cast<int>(ne.size()), ne.data());
  ggml_set_name(tensor, name.c_str());
  gguf_add_tensor(context_.get(), tensor);
  const uint64_t bytes = ggml_nbytes(tensor);
  ggml_free(scratch);
  return bytes;
}

void GgufWriter::begin(const std::filesystem::path& path) {
  std::vector<uint8_t> header(gguf_get_meta_size(context_.get()));
  gguf_get_meta_data(context_.get(), header.data());
  file_.emplace(path);
  file_->write(std::span<const uint8_t>(header));
}

void GgufWriter::write(const std::string& name, std::span<const uint8_t> bytes) {
  if (!file_ || next_ >= gguf_get_n_tensors(context_.get()) || name != gguf_get_tensor_name(context_.get(), next_) ||
      bytes.size() != gguf_get_tensor_size(context_.get(), next_))
    fail(Exit::internal, "GGUF tensor {} ({} bytes) is not the one announced next", name, bytes.size());
  file_->write(bytes);
  const std::vector<uint8_t> zeros(padding(bytes.size(), gguf_get_alignment(context_.get())));
  file_->write(std::span<const uint8_t>(zeros));
  ++next_;
}

uint64_t GgufWriter::commit() {
  if (!file_ || next_ != gguf_get_n_tensors(context_.get()))
    fail(Exit::internal, "a GGUF file committed with {} of {} tensors", next_, gguf_get_n_tensors(context_.get()));
  const uint64_t size = file_->position();
  file_->commit();
  return size;
}

}  // namespace retort
