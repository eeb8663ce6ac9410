// The gate on weights: each tensor of the file, dequantized, against the merged weight that it was made of.
//
// A damaged block in a large tensor moves the model's predictions by less than quantization does; here it stands out.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "adapters/merge.h"
#include "core/error.h"
#include "export/gate.h"
#include "models/family.h"
#include "models/gguf.h"

namespace retort {
namespace {

/// By the tensor's own type: half as much again as the largest relative error that was measured with or without an
/// importance matrix, and about twice the largest worst_block without one. Of two bits a weight and fewer that is as
/// much as a lost block, so theirs is less and more rows are quantized again (docs/gate.md).
WeightBounds bounds_of(int type) {
  static const std::map<int, WeightBounds> table = {
      {GGML_TYPE_F32, {0, 0}},          {GGML_TYPE_F16, {4e-4, 1e-3}},    {GGML_TYPE_BF16, {2.5e-3, 5e-3}},
      {GGML_TYPE_Q8_0, {0.015, 0.006}}, {GGML_TYPE_Q6_K, {0.035, 0.05}},  {GGML_TYPE_Q5_K, {0.065, 0.1}},
      {GGML_TYPE_Q5_1, {0.08, 0.07}},   {GGML_TYPE_Q5_0, {0.085, 0.12}},  {GGML_TYPE_Q4_K, {0.13, 0.2}},
      {GGML_TYPE_Q4_1, {0.135, 0.14}},  {GGML_TYPE_Q4_0, {0.17, 0.25}},   {GGML_TYPE_IQ4_NL, {0.14, 0.25}},
      {GGML_TYPE_IQ4_XS, {0.14, 0.2}},  {GGML_TYPE_MXFP4, {0.19, 0.4}},   {GGML_TYPE_Q3_K, {0.28, 0.4}},
      {GGML_TYPE_IQ3_S, {0.27, 0.6}},   {GGML_TYPE_IQ3_XXS, {0.35, 0.7}}, {GGML_TYPE_Q2_K, {0.5, 0.6}},
      {GGML_TYPE_IQ2_S, {0.5, 0.5}},    {GGML_TYPE_IQ2_XS, {0.56, 0.5}},  {GGML_TYPE_IQ2_XXS, {0.66, 0.5}},
      {GGML_TYPE_IQ1_M, {0.9, 0.1}},    {GGML_TYPE_IQ1_S, {0.9, 0.1}},
  };
  const auto bounds = table.find(type);
  return bounds == table.end() ? WeightBounds{1, 0.1} : bounds->second;  // two values or three a weight
}

/// `rows` quantized as llama-quantize does it, and dequantized again. Undefined for what it cannot make.
at::Tensor quantized_again(const at::Tensor& rows, int type_id, std::span<const float> columns) {
  const auto type = static_cast<ggml_type>(type_id);
  // Q8_1 and Q8_K are llama.cpp's own for activations; ggml_quantize_chunk aborts on them.
  if (!ggml_is_quantized(type) || type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) return {};
  if (columns.empty() && ggml_quantize_requires_imatrix(type)) return {};
  const int64_t count = rows.size(0), width = rows.size(1);
  const size_t row_bytes = ggml_row_size(type, width);
  std::vector<uint8_t> bytes(row_bytes * static_cast<size_t>(count));
  ggml_quantize_init(type);
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    ggml_quantize_chunk(type, rows.const_data_ptr<float>() + begin * width,
                        bytes.data() + static_cast<size_t>(begin) * row_bytes, 0, end - begin, width,
                        columns.empty() ? nullptr : columns.data());
  });
  return QuantizedTensor("quantized again", type, {count, width}, bytes, nullptr).dequantize(at::kFloat);
}

}  // namespace

WeightDifference compare_weight(const QuantizedTensor& stored, const at::Tensor& merged,
                                std::span<const float> columns) {
  const at::Tensor wanted = merged.to(at::kFloat).contiguous();
  const at::Tensor found = stored.dequantize(at::kFloat).view_as(wanted);
  WeightDifference result{.tensor = stored.name(), .type = stored.type_name(), .bounds = bounds_of(stored.type())};
  const double power = wanted.square().sum(at::kDouble).item<double>();
  result.relative_error = std::sqrt((found - wanted).square().sum(at::kDouble).item<double>() / std::max(power, 1e-30));
  // A block's own largest weight sets its scale. One that is a thousandth of the tensor's largest does not matter, and
  // its f16 scale may underflow.
  const int64_t numel = wanted.numel();
  const int64_t block = std::min(numel, std::max<int64_t>(32, ggml_blck_size(static_cast<ggml_type>(stored.type()))));
  const double floor = std::max(1e-3 * wanted.abs().max().item<double>(), 1e-30);
  auto in_blocks = [&](const at::Tensor& x) {
    return x.flatten().narrow(0, 0, x.numel() / block * block).view({-1, block}).abs().amax(1);
  };
  const at::Tensor errors = in_blocks(found - wanted) / in_blocks(wanted).clamp_min(floor);
  result.worst_block = result.unexplained = errors.max().item<double>();
  if (wanted.dim() != 2 || wanted.size(1) % block != 0 || !(result.relative_error <= result.bounds.relative_error))
    return result;

  // A search for scales may give up single weights, most of all those that an importance matrix says nothing reads.
  // Whether it did so here, quantizing the same rows again tells.
  const at::Tensor worst_of_row = errors.view({wanted.size(0), -1}).amax(1);
  const at::Tensor beyond = worst_of_row.le(result.bounds.worst_block).logical_not_().nonzero().flatten();
  if (beyond.numel() == 0) return result;
  const at::Tensor rows = wanted.index_select(0, beyond);
  const at::Tensor again = quantized_again(rows, stored.type(), columns);
  if (!again.defined()) return result;
  const at::Tensor unlike = in_blocks(found.index_select(0, beyond) - again) / in_blocks(rows).clamp_min(floor);
  result.unexplained =
      at::minimum(errors.view({wanted.size(0), -1}).index_select(0, beyond).flatten(), unlike).max().item<double>();
  return result;
}

void compare_weights(const GateReference& reference, const GateFile& shipped_file, GateReport& report) {
  const std::unique_ptr<Checkpoint> file = Checkpoint::open(shipped_file.path);
  const auto adapted = merged_tensors(reference.base, reference.trained);
  const ModelConfig& config = reference.base.config();
  if (file->config().rope_factors != config.rope_factors || file->config().norm_eps != config.norm_eps ||
      file->config().rope_theta != config.rope_theta) {
    report.reasons.emplace_back("weights: the file's rotary or norm constants are not the base's");
  }
  std::map<std::string, std::string> gguf_names = {{"lm_head.weight", "output.weight"}};
  for (const TensorSpec& spec : family_of(config).tensors(config)) gguf_names[spec.name] = spec.gguf;
  std::vector<std::string> names = reference.base.names();
  for (const auto& [name, make] : adapted)
    if (!reference.base.has(name)) names.push_back(name);
  for (const std::string& name : names) {
    if (!file->has(name)) {
      report.reasons.push_back(fmt::format("weights: {} is missing", name));
      continue;
    }
    const QuantizedTensor shipped = file->tensor(name);
    const auto adapter = adapted.find(name);
    const at::Tensor merged =
        adapter == adapted.end() ? reference.base.tensor(name).dequantize(at::kFloat) : adapter->second();
    if (at::IntArrayRef(shipped.shape()) != merged.sizes()) {
      report.reasons.push_back(fmt::format("weights: {} has the shape [{}], the base's is [{}]", name,
                                           fmt::join(shipped.shape(), ", "), fmt::join(merged.sizes(), ", ")));
      continue;
    }
    std::vector<float> columns;
    if (shipped_file.imatrix) {
      const auto entry = shipped_file.imatrix->entries.find(gguf_names[name]);
      if (entry != shipped_file.imatrix->entries.end()) columns = column_weights(entry->second);
    }
    WeightDifference difference = compare_weight(shipped, merged, columns);
    difference.tensor = name;
    const WeightBounds& bounds = difference.bounds;
    // Written so that a NaN is refused.
    if (!(difference.relative_error <= bounds.relative_error)) {
      report.reasons.push_back(fmt::format(
          "weights: {} ({}) differs from the merged weight by {:.3g} of its size, allowed is at most {:.3g}", name,
          difference.type, difference.relative_error, bounds.relative_error));
    } else if (!(difference.unexplained <= bounds.worst_block)) {
      report.reasons.push_back(fmt::format(
          "weights: {} ({}) has a weight that is off by {:.3g} of the largest in its block, allowed is at most {:.3g}",
          name, difference.type, difference.unexplained, bounds.worst_block));
    }
    auto [worst, fresh] = report.weights.try_emplace(difference.type, difference);
    WeightDifference& of_type = worst->second;
    if (!fresh) {
      // Comparisons that keep a NaN.
      if (!(difference.relative_error <= of_type.relative_error)) {
        of_type.relative_error = difference.relative_error;
        of_type.tensor = name;
      }
      if (!(difference.worst_block <= of_type.worst_block)) of_type.worst_block = difference.worst_block;
      if (!(difference.unexplained <= of_type.unexplained)) of_type.unexplained = difference.unexplained;
    }
  }
}

}  // namespace retort
