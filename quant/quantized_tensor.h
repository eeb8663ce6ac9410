// A frozen weight kept in the bytes of its file: any ggml type, from F32 to IQ1_S, or bitsandbytes' codes with their
// scales. Whoever uses one asks for rows and need not know which.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quant/bnb.h"

namespace retort {

/// `shape` is torch order ([out, in] for a linear weight); rows are contiguous and, in ggml's types, whole numbers of
/// blocks. The bytes belong to `owner` (a mapped file or a buffer) and are never copied.
class QuantizedTensor {
 public:
  QuantizedTensor() = default;
  /// Throws Error(bad_input) with `name` when the byte count does not fit type and shape or a row is not whole blocks.
  QuantizedTensor(std::string name, int ggml_type, std::vector<int64_t> shape, std::span<const uint8_t> bytes,
                  std::shared_ptr<const void> owner);

  /// bitsandbytes' codes; `state` holds their scales. Throws Error(bad_input) with `name` when they do not fit `shape`
  /// or a scale is not finite.
  QuantizedTensor(std::string name, std::shared_ptr<const BnbState> state, std::vector<int64_t> shape,
                  std::span<const uint8_t> codes, std::shared_ptr<const void> owner);

  const std::string& name() const { return name_; }
  bool is_ggml() const { return state_ == nullptr; }
  int type() const { return type_; }                    ///< enum ggml_type; -1 when it is none
  const BnbState* bnb() const { return state_.get(); }  ///< nullptr for ggml's types
  std::string type_name() const;                        ///< "Q4_1", "NF4_DQ" (as bnb_name)
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t elements() const;  ///< product of all dimensions
  int64_t rows() const;      ///< product of all dimensions but the last
  int64_t columns() const { return shape_.back(); }
  std::span<const uint8_t> bytes() const { return bytes_; }  ///< without bitsandbytes' scales
  /// All that it is made of, scales included.
  std::vector<std::span<const uint8_t>> parts() const;
  uint64_t stored_bytes() const;                                                    ///< of all parts
  size_t row_bytes() const { return bytes_.size() / static_cast<size_t>(rows()); }  ///< of ggml's types
  double bits_per_weight() const;

  /// Dequantizes rows [begin, end) into `out` (contiguous, [end - begin, columns]; f32, f64, bf16 or f16) exactly
  /// as ggml's to_float or bitsandbytes does, in parallel. Error(bad_input) for the integer types, which hold no
  /// weights.
  void dequantize_rows(int64_t begin, int64_t end, const at::Tensor& out) const;
  /// Weights [begin, end) of one row to `out`, f32, on the calling thread; in ggml's types whole blocks. For loops that
  /// have checked type and bounds.
  void to_floats(int64_t row, int64_t begin, int64_t end, float* out) const;
  /// The whole tensor as a new dense tensor of `dtype`.
  at::Tensor dequantize(at::ScalarType dtype = at::kFloat) const;
  /// A tensor with rows in another order (row i of the result is row order[i]); copies the bytes.
  /// A vector's rows are its elements. Only ggml's types lie in rows: others stay as a Hugging Face folder has them.
  QuantizedTensor permute_rows(std::span<const int64_t> order) const;
  /// The same bytes under another name, in a shape of the same size.
  QuantizedTensor renamed(std::string name, std::vector<int64_t> shape) const;
  /// Error(bad_input) for the integer types, which hold no weights.
  void check_holds_weights() const;

 private:
  void rows_to_floats(int64_t row, int64_t count, float* out) const;

  std::string name_;
  int type_ = 0;
  std::vector<int64_t> shape_;
  std::span<const uint8_t> bytes_;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<const BnbState> state_;
};

/// A dense tensor (any ggml type that holds weights, or codes of another kind) in bitsandbytes' form.
QuantizedTensor bnb_quantized(const QuantizedTensor& tensor, const BnbOptions& options);

/// "Q4_1" for GGML_TYPE_Q4_1; `type` must be one that ggml knows.
std::string ggml_type_label(int type);

}  // namespace retort
