#include "quant/quantized_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "core/error.h"

namespace retort {
namespace {

const ggml_type_traits& traits(int type) { return *ggml_get_type_traits(static_cast<ggml_type>(type)); }

/// Throws unless `type` is one that ggml still knows: the enum has holes where support was removed.
void check_type(const std::string& name, int type) {
  if (type < 0 || type >= GGML_TYPE_COUNT || traits(type).type_size == 0 || traits(type).blck_size == 0)
    fail(Exit::bad_input, "tensor {}: ggml type {} does not exist", name, type);
}

/// Bytes of `shape` in `type`; throws on shapes that no file can hold.
uint64_t expected_bytes(const std::string& name, int type, const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  if (shape.empty()) fail(Exit::bad_input, "tensor {}: a scalar, expected at least one dimension", name);
  for (int64_t size : shape)
    if (size <= 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements))
      fail(Exit::bad_input, "tensor {}: shape [{}] is impossible", name, fmt::join(shape, ", "));
  const auto block = static_cast<uint64_t>(traits(type).blck_size);
  if (static_cast<uint64_t>(shape.back()) % block != 0)
    fail(Exit::bad_input, "tensor {}: rows of {} are not whole blocks of {} ({})", name, shape.back(), block,
         ggml_type_label(type));
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / block, static_cast<uint64_t>(traits(type).type_size), &bytes))
    fail(Exit::bad_input, "tensor {}: shape [{}] is impossible", name, fmt::join(shape, ", "));
  return bytes;
}

/// Converts `n` elements from `from` to float. Only F64 loses bits here; it never takes this way into an f64 tensor.
void to_float(int type, const uint8_t* from, float* to, int64_t n) {
  if (type == GGML_TYPE_F32) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  } else if (type == GGML_TYPE_F64) {
    for (int64_t i = 0; i < n; ++i) {
      double value;
      std::memcpy(&value, from + static_cast<size_t>(i) * sizeof value, sizeof value);
      to[i] = static_cast<float>(value);
    }
  } else {
    traits(type).to_float(from, to, n);
  }
}

template <typename T>
void convert_rows(int type, const uint8_t* from, T* to, int64_t rows, int64_t columns, size_t row_bytes) {
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t i = 0; i < rows; ++i, from += row_bytes, to += columns) {
    to_float(type, from, row.data(), columns);
    for (int64_t j = 0; j < columns; ++j) to[j] = static_cast<T>(row[static_cast<size_t>(j)]);
  }
}

}  // namespace

QuantizedTensor::QuantizedTensor(std::string name, int ggml_type, std::vector<int64_t> shape,
                                 std::span<const uint8_t> bytes, std::shared_ptr<const void> owner)
    : name_(std::move(name)), type_(ggml_type), shape_(std::move(shape)), bytes_(bytes), owner_(std::move(owner)) {
  check_type(name_, type_);
  const uint64_t expected = expected_bytes(name_, type_, shape_);
  if (bytes_.size() != expected)
    fail(Exit::bad_input, "tensor {}: {} bytes, but shape [{}] in {} takes {}", name_, bytes_.size(),
         fmt::join(shape_, ", "), type_name(), expected);
}

std::string QuantizedTensor::type_name() const { return ggml_type_label(type_); }

int64_t QuantizedTensor::elements() const {
  int64_t n = 1;
  for (int64_t size : shape_) n *= size;
  return n;
}

int64_t QuantizedTensor::rows() const { return elements() / columns(); }

double QuantizedTensor::bits_per_weight() const {
  return 8.0 * static_cast<double>(bytes_.size()) / static_cast<double>(elements());
}

void QuantizedTensor::dequantize_rows(int64_t begin, int64_t end, const at::Tensor& out) const {
  if (begin < 0 || end < begin || end > rows() || !out.is_contiguous() || !out.device().is_cpu() ||
      out.numel() != (end - begin) * columns())
    fail(Exit::internal, "tensor {}: dequantize_rows({}, {}) of {} rows into {} elements", name_, begin, end, rows(),
         out.numel());
  if (type_ != GGML_TYPE_F32 && type_ != GGML_TYPE_F64 && traits(type_).to_float == nullptr)
    fail(Exit::bad_input, "tensor {}: type {} holds no weights", name_, type_name());
  const int64_t columns = this->columns();
  const size_t row_bytes = this->row_bytes();
  const uint8_t* from = bytes_.data() + static_cast<size_t>(begin) * row_bytes;
  // About 10 us of work a task, so that small tensors stay on one thread.
  const int64_t grain = std::max<int64_t>(1, 16384 / columns);
  at::parallel_for(0, end - begin, grain, [&](int64_t first, int64_t last) {
    const uint8_t* source = from + static_cast<size_t>(first) * row_bytes;
    const int64_t rows = last - first;
    const int64_t offset = first * columns;
    switch (out.scalar_type()) {
      case at::kFloat:
        to_float(type_, source, out.data_ptr<float>() + offset, rows * columns);
        break;
      case at::kDouble:
        if (type_ == GGML_TYPE_F64)
          std::memcpy(out.data_ptr<double>() + offset, source, static_cast<size_t>(rows) * row_bytes);
        else
          convert_rows(type_, source, out.data_ptr<double>() + offset, rows, columns, row_bytes);
        break;
      case at::kBFloat16:
        convert_rows(type_, source, out.data_ptr<at::BFloat16>() + offset, rows, columns, row_bytes);
        break;
      case at::kHalf:
        convert_rows(type_, source, out.data_ptr<at::Half>() + offset, rows, columns, row_bytes);
        break;
      default:
        fail(Exit::internal, "tensor {}: cannot dequantize to {}", name_, c10::toString(out.scalar_type()));
    }
  });
}

at::Tensor QuantizedTensor::dequantize(at::ScalarType dtype) const {
  auto out = at::empty(shape_, at::TensorOptions().dtype(dtype));
  dequantize_rows(0, rows(), out);
  return out;
}

QuantizedTensor QuantizedTensor::permute_rows(std::span<const int64_t> order) const {
  const bool vector = shape_.size() == 1 && traits(type_).blck_size == 1;
  const int64_t rows = vector ? columns() : this->rows();
  if (static_cast<int64_t>(order.size()) != rows)
    fail(Exit::internal, "tensor {}: an order of {} for {} rows", name_, order.size(), rows);
  auto buffer = std::make_shared<std::vector<uint8_t>>(bytes_.size());
  const size_t row_bytes = bytes_.size() / order.size();
  for (size_t i = 0; i < order.size(); ++i)
    std::memcpy(buffer->data() + i * row_bytes, bytes_.data() + static_cast<size_t>(order[i]) * row_bytes, row_bytes);
  const std::span<const uint8_t> bytes(*buffer);
  return QuantizedTensor(name_, type_, shape_, bytes, std::move(buffer));
}

QuantizedTensor QuantizedTensor::renamed(std::string name, std::vector<int64_t> shape) const {
  return QuantizedTensor(std::move(name), type_, std::move(shape), bytes_, owner_);
}

std::string ggml_type_label(int type) {
  std::string name = traits(type).type_name;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace retort
