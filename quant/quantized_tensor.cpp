#include "quant/quantized_tensor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "core/error.h"
#include "quant/dequantize.h"

namespace retort {
namespace {

const ggml_type_traits& traits(int type) { return *ggml_get_type_traits(static_cast<ggml_type>(type)); }

std::string upper(std::string name) {
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

/// Throws unless `type` is one that ggml still knows: the enum has holes where support was removed.
void check_type(const std::string& name, int type) {
  if (type < 0 || type >= GGML_TYPE_COUNT || traits(type).type_size == 0 || traits(type).blck_size == 0)
    fail(Exit::bad_input, "tensor {}: ggml type {} does not exist", name, type);
}

/// Elements of `shape`; throws on shapes that no file can hold.
uint64_t checked_elements(const std::string& name, const std::vector<int64_t>& shape) {
  uint64_t elements = 1;
  if (shape.empty()) fail(Exit::bad_input, "tensor {}: a scalar, expected at least one dimension", name);
  for (int64_t size : shape)
    if (size <= 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements))
      fail(Exit::bad_input, "tensor {}: shape [{}] is impossible", name, fmt::join(shape, ", "));
  if (elements > INT64_MAX) fail(Exit::bad_input, "tensor {}: shape [{}] is impossible", name, fmt::join(shape, ", "));
  return elements;
}

/// Bytes of `shape` in `type`.
uint64_t expected_bytes(const std::string& name, int type, const std::vector<int64_t>& shape) {
  const uint64_t elements = checked_elements(name, shape);
  const auto block = static_cast<uint64_t>(traits(type).blck_size);
  if (static_cast<uint64_t>(shape.back()) % block != 0)
    fail(Exit::bad_input, "tensor {}: rows of {} are not whole blocks of {} ({})", name, shape.back(), block,
         ggml_type_label(type));
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / block, static_cast<uint64_t>(traits(type).type_size), &bytes))
    fail(Exit::bad_input, "tensor {}: shape [{}] is impossible", name, fmt::join(shape, ", "));
  return bytes;
}

/// Converts `n` elements, whole blocks, from `from` to float. Only F64 loses bits here; it never takes this way into an
/// f64 tensor.
void blocks_to_floats(int type, const uint8_t* from, float* to, int64_t n) {
  if (type == GGML_TYPE_F32) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  } else if (type == GGML_TYPE_F64) {
    for (int64_t i = 0; i < n; ++i) {
      double value;
      std::memcpy(&value, from + static_cast<size_t>(i) * sizeof value, sizeof value);
      to[i] = static_cast<float>(value);
    }
  } else if (const ToFloats vectorized = vectorized_to_floats(type)) {
    vectorized(from, n, to);
  } else {
    traits(type).to_float(from, to, n);
  }
}

/// Rows [begin, end) through a row of floats.
template <typename T, typename ToFloats>
void convert_rows(const ToFloats& to_floats, T* to, int64_t begin, int64_t end, int64_t columns) {
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t i = begin; i < end; ++i, to += columns) {
    to_floats(i, 1, row.data());
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

QuantizedTensor::QuantizedTensor(std::string name, std::shared_ptr<const BnbState> state, std::vector<int64_t> shape,
                                 std::span<const uint8_t> codes, std::shared_ptr<const void> owner)
    : name_(std::move(name)),
      type_(-1),
      shape_(std::move(shape)),
      bytes_(codes),
      owner_(std::move(owner)),
      state_(std::move(state)) {
  checked_elements(name_, shape_);
  check_bnb(name_, *state_, rows(), columns(), bytes_.size());
}

std::string QuantizedTensor::type_name() const {
  return is_ggml() ? ggml_type_label(type_) : upper(bnb_name({state_->format, state_->is_double()}));
}

int64_t QuantizedTensor::elements() const {
  int64_t n = 1;
  for (int64_t size : shape_) n *= size;
  return n;
}

int64_t QuantizedTensor::rows() const { return elements() / columns(); }

std::vector<std::span<const uint8_t>> QuantizedTensor::parts() const {
  if (is_ggml()) return {bytes_};
  const auto bytes = [](const float* values, size_t n) {
    return std::span(reinterpret_cast<const uint8_t*>(values), n * sizeof(float));
  };
  const BnbState& s = *state_;
  std::vector<std::span<const uint8_t>> parts = {bytes_, bytes(s.absmax.data(), s.absmax.size())};
  if (s.is_double()) {
    parts.emplace_back(s.nested);
    parts.push_back(bytes(&s.offset, 1));
  }
  return parts;
}

uint64_t QuantizedTensor::stored_bytes() const {
  uint64_t bytes = 0;
  for (const auto& part : parts()) bytes += part.size();
  return bytes;
}

double QuantizedTensor::bits_per_weight() const {
  return 8.0 * static_cast<double>(stored_bytes()) / static_cast<double>(elements());
}

void QuantizedTensor::check_holds_weights() const {
  if (is_ggml() && type_ != GGML_TYPE_F32 && type_ != GGML_TYPE_F64 && traits(type_).to_float == nullptr)
    fail(Exit::bad_input, "tensor {}: type {} holds no weights", name_, type_name());
}

void QuantizedTensor::to_floats(int64_t row, int64_t begin, int64_t end, float* out) const {
  if (!is_ggml()) return bnb_dequantize(*state_, bytes_.data(), row * columns() + begin, row * columns() + end, out);
  const size_t first = static_cast<size_t>(row) * row_bytes() + ggml_row_size(static_cast<ggml_type>(type_), begin);
  blocks_to_floats(type_, bytes_.data() + first, out, end - begin);
}

void QuantizedTensor::rows_to_floats(int64_t row, int64_t count, float* out) const {
  if (!is_ggml())
    bnb_dequantize(*state_, bytes_.data(), row * columns(), (row + count) * columns(), out);
  else
    blocks_to_floats(type_, bytes_.data() + static_cast<size_t>(row) * row_bytes(), out, count * columns());
}

void QuantizedTensor::dequantize_rows(int64_t begin, int64_t end, const at::Tensor& out) const {
  if (begin < 0 || end < begin || end > rows() || !out.is_contiguous() || !out.device().is_cpu() ||
      out.numel() != (end - begin) * columns())
    fail(Exit::internal, "tensor {}: dequantize_rows({}, {}) of {} rows into {} elements", name_, begin, end, rows(),
         out.numel());
  check_holds_weights();
  const int64_t columns = this->columns();
  const auto to_floats = [&](int64_t row, int64_t count, float* to) { rows_to_floats(row, count, to); };
  // About 10 us of work a task, so that small tensors stay on one thread.
  const int64_t grain = std::max<int64_t>(1, 16384 / columns);
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    const int64_t offset = (first - begin) * columns;
    switch (out.scalar_type()) {
      case at::kFloat:
        to_floats(first, last - first, out.data_ptr<float>() + offset);
        break;
      case at::kDouble:
        if (type_ == GGML_TYPE_F64)
          std::memcpy(out.data_ptr<double>() + offset, bytes_.data() + static_cast<size_t>(first) * row_bytes(),
                      static_cast<size_t>(last - first) * row_bytes());
        else
          convert_rows(to_floats, out.data_ptr<double>() + offset, first, last, columns);
        break;
      case at::kBFloat16:
        convert_rows(to_floats, out.data_ptr<at::BFloat16>() + offset, first, last, columns);
        break;
      case at::kHalf:
        convert_rows(to_floats, out.data_ptr<at::Half>() + offset, first, last, columns);
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
  if (!is_ggml()) fail(Exit::internal, "tensor {}: rows of {} cannot change places", name_, type_name());
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
  if (!is_ggml()) return QuantizedTensor(std::move(name), state_, std::move(shape), bytes_, owner_);
  return QuantizedTensor(std::move(name), type_, std::move(shape), bytes_, owner_);
}

QuantizedTensor bnb_quantized(const QuantizedTensor& tensor, const BnbOptions& options) {
  const at::Tensor dense = tensor.dequantize(at::kFloat);
  const std::span weights(dense.const_data_ptr<float>(), static_cast<size_t>(dense.numel()));
  auto made = std::make_shared<BnbWeights>(bnb_quantize(tensor.name(), weights, tensor.columns(), options));
  made->state.dtype = tensor.type() == GGML_TYPE_BF16  ? at::kBFloat16
                      : tensor.type() == GGML_TYPE_F16 ? at::kHalf
                                                       : at::kFloat;
  const std::shared_ptr<const BnbState> state(made, &made->state);
  const std::span<const uint8_t> codes(made->codes);
  return QuantizedTensor(tensor.name(), state, tensor.shape(), codes, std::move(made));
}

std::string ggml_type_label(int type) { return upper(traits(type).type_name); }

}  // namespace retort
