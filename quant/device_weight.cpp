#include "quant/device_weight.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <ggml.h>

#include <array>
#include <optional>
#include <utility>

#include "core/error.h"

namespace retort {
namespace {

using kernels::Form;

constexpr std::pair<int, Form> ggml_forms[] = {{GGML_TYPE_Q4_0, Form::q4_0}, {GGML_TYPE_Q4_1, Form::q4_1},
                                               {GGML_TYPE_Q5_0, Form::q5_0}, {GGML_TYPE_Q5_1, Form::q5_1},
                                               {GGML_TYPE_Q8_0, Form::q8_0}, {GGML_TYPE_Q2_K, Form::q2_k},
                                               {GGML_TYPE_Q3_K, Form::q3_k}, {GGML_TYPE_Q4_K, Form::q4_k},
                                               {GGML_TYPE_Q5_K, Form::q5_k}, {GGML_TYPE_Q6_K, Form::q6_k}};

std::optional<Form> form_of(const QuantizedTensor& tensor) {
  if (tensor.is_ggml()) {
    for (const auto& [type, form] : ggml_forms)
      if (type == tensor.type()) return form;
    return {};
  }
  switch (tensor.bnb()->format) {
    case BnbFormat::int8_rows:
      return Form::int8_rows;
    case BnbFormat::int8_blocks:
      return Form::int8_blocks;
    default:
      return Form::four_bits;
  }
}

template <typename T>
at::Tensor copied(const T* data, size_t n, at::ScalarType dtype, at::Device device) {
  return at::from_blob(const_cast<T*>(data), {static_cast<int64_t>(n)}, dtype).to(device, false, /*copy=*/true);
}

kernels::Float float_of(const std::string& name, at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return kernels::Float::f32;
    case at::kHalf:
      return kernels::Float::f16;
    case at::kBFloat16:
      return kernels::Float::bf16;
    default:
      fail(Exit::internal, "tensor {}: no kernel for {}", name, c10::toString(dtype));
  }
}

void* current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

}  // namespace

bool DeviceWeight::supports(const QuantizedTensor& tensor) {
  return form_of(tensor) && tensor.columns() % 8 == 0 && (tensor.is_ggml() || tensor.bnb()->block % 8 == 0);
}

DeviceWeight::DeviceWeight(const QuantizedTensor& tensor, at::Device device)
    : name_(tensor.name()), rows_(tensor.rows()) {
  if (!supports(tensor)) fail(Exit::internal, "tensor {}: no kernel reads {}", name_, tensor.type_name());
  codes_ = copied(tensor.bytes().data(), tensor.bytes().size(), at::kByte, device);
  weight_.form = *form_of(tensor);
  weight_.codes = codes_.const_data_ptr<uint8_t>();
  weight_.columns = tensor.columns();
  if (tensor.is_ggml()) return;
  const BnbState& s = *tensor.bnb();
  absmax_ = copied(s.absmax.data(), s.absmax.size(), at::kFloat, device);
  weight_.scales = {.absmax = absmax_.const_data_ptr<float>(),
                    .nested = nullptr,
                    .map = nullptr,
                    .offset = s.offset,
                    .block = s.block,
                    .nested_block = s.nested_block};
  if (s.is_double()) {
    nested_ = copied(s.nested.data(), s.nested.size(), at::kByte, device);
    map_ = copied(s.nested_map.data(), s.nested_map.size(), at::kFloat, device);
    weight_.scales.nested = nested_.const_data_ptr<uint8_t>();
    weight_.scales.map = map_.const_data_ptr<float>();
  }
  if (s.format == BnbFormat::int8_rows) return;
  if (s.format == BnbFormat::int8_blocks)
    table_ = copied(signed_dynamic_map().data(), signed_dynamic_map().size(), at::kFloat, device);
  else
    table_ = copied(bnb_table(s.format).data(), bnb_table(s.format).size(), at::kFloat, device);
  weight_.table = table_.const_data_ptr<float>();
}

int64_t DeviceWeight::bytes() const {
  int64_t all = 0;
  for (const at::Tensor& part : {codes_, table_, absmax_, nested_, map_})
    if (part.defined()) all += static_cast<int64_t>(part.nbytes());
  return all;
}

void DeviceWeight::check(const char* error) const {
  if (error) fail(Exit::internal, "tensor {}: CUDA: {}", name_, error);
}

void DeviceWeight::dequantize_rows(int64_t begin, int64_t end, const at::Tensor& out) const {
  if (begin < 0 || end < begin || end > rows_ || !out.is_contiguous() || out.device() != device() ||
      out.numel() != (end - begin) * columns())
    fail(Exit::internal, "tensor {}: dequantize_rows({}, {}) of {} rows into {} elements", name_, begin, end, rows_,
         out.numel());
  const c10::DeviceGuard guard(device());
  check(kernels::dequantize(weight_, nullptr, begin, end - begin, float_of(name_, out.scalar_type()), out.data_ptr(),
                            current_stream(device())));
}

at::Tensor DeviceWeight::rows_at(const at::Tensor& indices, at::ScalarType dtype) const {
  const at::Tensor at_device = indices.to(device()).contiguous();
  const at::Tensor out = at::empty({indices.size(0), columns()}, at::TensorOptions(device()).dtype(dtype));
  const c10::DeviceGuard guard(device());
  check(kernels::dequantize(weight_, at_device.const_data_ptr<int64_t>(), 0, indices.size(0), float_of(name_, dtype),
                            out.data_ptr(), current_stream(device())));
  return out;
}

bool DeviceWeight::multiplies(const at::Tensor& x) const {
  const auto bytes = static_cast<int64_t>(x.element_size());
  return x.size(0) >= 1 && x.size(0) <= kernels::most_tokens && x.scalar_type() != at::kDouble &&
         (x.size(0) == 1 || x.stride(0) * bytes % 16 == 0) && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

void DeviceWeight::multiply(const at::Tensor& x, const at::Tensor& y) const {
  const c10::DeviceGuard guard(device());
  check(kernels::multiply(weight_, rows_, float_of(name_, x.scalar_type()), x.const_data_ptr(), x.stride(0), x.size(0),
                          y.data_ptr(), y.stride(0), current_stream(device())));
}

}  // namespace retort
