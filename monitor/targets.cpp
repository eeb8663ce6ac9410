#include "monitor/targets.h"

#include <ATen/ATen.h>

namespace retort {

Targets trained_targets(const Example& example) {
  Targets targets;
  for (size_t t = 1; t < example.ids.size(); ++t) {
    if (!example.trained[t]) continue;
    targets.positions.push_back(static_cast<int64_t>(t) - 1);
    targets.ids.push_back(example.ids[t]);
  }
  return targets;
}

std::vector<int32_t> joined(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
  std::vector<int32_t> ids = prompt;
  ids.insert(ids.end(), answer.begin(), answer.end());
  return ids;
}

Targets answer_targets(const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer) {
  Targets targets;
  for (size_t t = 0; t < answer.size(); ++t) {
    targets.positions.push_back(static_cast<int64_t>(prompt.size() + t) - 1);
    targets.ids.push_back(answer[t]);
  }
  return targets;
}

std::vector<double> log_probabilities(const at::Tensor& logits, const std::vector<int64_t>& ids) {
  at::Tensor index = at::tensor(ids, at::kLong).unsqueeze(1);
  at::Tensor chosen = (logits.gather(1, index) - at::logsumexp(logits, {1}, true)).to(at::kDouble).contiguous();
  return {chosen.data_ptr<double>(), chosen.data_ptr<double>() + ids.size()};
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (double value : values) total += value;
  return total;
}

}  // namespace retort
