// The gate on weights: each tensor of the file, dequantized, against the merged weight that it was made of.
//
// A damaged block in a large tensor moves the model's predictions by less than quantization does; here it stands out.
#include <ATen/ATen.h>
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

struct Bounds {
  double relative_error, worst_block;
};

/// Bounds on WeightDifference by the tensor's own type. The error of the mean is a property of the grid (docs/gate.md
/// has what was measured); one weight may move by more where an importance matrix makes the search clip it.
Bounds bounds_of(int type) {
  static const std::map<int, Bounds> table = {
      {GGML_TYPE_F32, {0, 0}},          {GGML_TYPE_F16, {4e-4, 1e-3}},   {GGML_TYPE_BF16, {2.5e-3, 5e-3}},
      {GGML_TYPE_Q8_0, {0.015, 0.006}}, {GGML_TYPE_Q6_K, {0.035, 0.1}},  {GGML_TYPE_Q5_K, {0.065, 0.2}},
      {GGML_TYPE_Q5_1, {0.09, 0.2}},    {GGML_TYPE_Q5_0, {0.09, 0.2}},   {GGML_TYPE_Q4_K, {0.13, 0.35}},
      {GGML_TYPE_Q4_1, {0.15, 0.35}},   {GGML_TYPE_Q4_0, {0.18, 0.35}},  {GGML_TYPE_IQ4_NL, {0.15, 0.35}},
      {GGML_TYPE_IQ4_XS, {0.15, 0.35}}, {GGML_TYPE_MXFP4, {0.25, 0.5}},  {GGML_TYPE_Q3_K, {0.3, 0.7}},
      {GGML_TYPE_IQ3_S, {0.35, 1.0}},   {GGML_TYPE_IQ3_XXS, {0.4, 1.0}}, {GGML_TYPE_Q2_K, {0.6, 1.1}},
      {GGML_TYPE_IQ2_S, {0.6, 1.3}},    {GGML_TYPE_IQ2_XS, {0.65, 1.3}}, {GGML_TYPE_IQ2_XXS, {0.7, 1.3}},
  };
  const auto bounds = table.find(type);
  return bounds == table.end() ? Bounds{1, 1.6} : bounds->second;  // one or two bits a weight
}

WeightDifference measure(const std::string& name, const QuantizedTensor& stored, const at::Tensor& expected) {
  const at::Tensor wanted = expected.to(at::kFloat).flatten();
  const at::Tensor error = stored.dequantize(at::kFloat).flatten().sub_(wanted);
  const double power = wanted.square().sum(at::kDouble).item<double>();
  WeightDifference result{name, stored.type_name()};
  result.relative_error = std::sqrt(error.square().sum(at::kDouble).item<double>() / std::max(power, 1e-30));
  // A block's own largest weight sets its scale. One that is a thousandth of the tensor's largest does not matter, and
  // its f16 scale may underflow.
  const int64_t block =
      std::min(wanted.numel(), std::max<int64_t>(32, ggml_blck_size(static_cast<ggml_type>(stored.type()))));
  const at::Tensor blocks = wanted.narrow(0, 0, wanted.numel() / block * block).view({-1, block});
  const at::Tensor largest = blocks.abs().amax(1);
  const double floor = std::max(1e-3 * largest.max().item<double>(), 1e-30);
  const at::Tensor errors = error.narrow(0, 0, blocks.numel()).view({-1, block}).abs_().amax(1);
  result.worst_block = (errors / largest.clamp_min(floor)).max().item<double>();
  return result;
}

}  // namespace

void compare_weights(const GateReference& reference, const std::filesystem::path& path, GateReport& report) {
  const std::unique_ptr<Checkpoint> file = Checkpoint::open(path);
  const bool weighted = file->is_gguf() && file->gguf()->has("quantize.imatrix.dataset");
  const auto adapters = adapted_weights(reference.trained);
  const ModelConfig& config = reference.base.config();
  if (file->config().rope_factors != config.rope_factors || file->config().norm_eps != config.norm_eps ||
      file->config().rope_theta != config.rope_theta) {
    report.reasons.emplace_back("weights: the file's rotary or norm constants are not the base's");
  }
  std::vector<std::string> names = reference.base.names();
  if (config.tied && adapters.contains("lm_head.weight")) names.push_back("lm_head.weight");
  for (const std::string& name : names) {
    if (!file->has(name)) {
      report.reasons.push_back(fmt::format("weights: {} is missing", name));
      continue;
    }
    const QuantizedTensor shipped = file->tensor(name);
    const QuantizedTensor base =
        reference.base.tensor(name == "lm_head.weight" && config.tied ? "model.embed_tokens.weight" : name);
    if (shipped.shape() != base.shape()) {
      report.reasons.push_back(fmt::format("weights: {} has the shape [{}], the base's is [{}]", name,
                                           fmt::join(shipped.shape(), ", "), fmt::join(base.shape(), ", ")));
      continue;
    }
    auto adapter = adapters.find(name);
    const at::Tensor merged =
        adapter == adapters.end() ? base.dequantize(at::kFloat) : merged_weight(base, *adapter->second);
    const WeightDifference difference = measure(name, shipped, merged);
    Bounds bounds = bounds_of(shipped.type());
    // An importance matrix gives up weights that nothing reads for those that matter: only damage goes beyond a
    // weight's size.
    if (weighted) bounds.worst_block = std::max(bounds.worst_block, 1.0);
    // Written so that a NaN is refused.
    if (!(difference.relative_error <= bounds.relative_error && difference.worst_block <= bounds.worst_block)) {
      report.reasons.push_back(
          fmt::format("weights: {} ({}) differs from the merged weight by {:.3g} of its size (allowed {:.3g}), in its "
                      "one weight by "
                      "{:.3g} (allowed {:.3g})",
                      name, difference.type, difference.relative_error, bounds.relative_error, difference.worst_block,
                      bounds.worst_block));
    }
    if (report.worst.tensor.empty() || !(difference.relative_error <= report.worst.relative_error)) {
      report.worst = difference;
    }
  }
}

}  // namespace retort
