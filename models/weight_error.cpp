#include "models/weight_error.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"

namespace retort {

double Squares::relative() const { return size > 0 ? std::sqrt(difference / size) : 0; }

std::vector<WeightError> weight_errors(const Checkpoint& original, const Checkpoint& made) {
  std::vector<WeightError> errors;
  for (const std::string& name : made.names()) {
    const QuantizedTensor now = made.tensor(name);
    const bool own_head = name == "lm_head.weight" && !original.has(name);
    const std::string& source = own_head ? "model.embed_tokens.weight" : name;
    if (!original.has(source))
      fail(Exit::bad_input, "{}: has no tensor {}, which {} has; the two are not the same model",
           original.path().string(), name, made.path().string());
    const QuantizedTensor before = original.tensor(source);
    if (before.shape() != now.shape())
      fail(Exit::bad_input, "{}: {} has the shape [{}], in {} it is [{}]; the two are not the same model",
           original.path().string(), name, fmt::join(before.shape(), ", "), made.path().string(),
           fmt::join(now.shape(), ", "));
    const at::Tensor a = before.dequantize(at::kFloat), b = now.dequantize(at::kFloat);
    const at::Tensor difference = b - a;
    errors.push_back(
        {.name = name,
         .before = before.type_name(),
         .now = now.type_name(),
         .shape = now.shape(),
         .bits_per_weight = now.bits_per_weight(),
         .squares = {difference.square().sum(at::kDouble).item<double>(), a.square().sum(at::kDouble).item<double>()},
         .largest = difference.abs().max().item<double>()});
  }
  return errors;
}

}  // namespace retort
