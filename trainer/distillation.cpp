#include "trainer/distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace retort {
namespace {

/// "teacher.divergence", or "divergence" where there is one teacher.
std::string key(const std::string& name, const char* what) { return name.empty() ? what : name + "." + what; }

const Linear& head_of(CausalLM& model) { return *model.linears().back(); }

}  // namespace

void TaidSchedule::update(std::map<std::string, double>& numbers, double progress, double loss) const {
  double& now = numbers[t];
  double& mean = numbers[t + ".momentum"];
  const auto before = numbers.find(t + ".loss");
  if (before != numbers.end())
    mean = momentum * mean + (1 - momentum) * (before->second - loss) / (before->second + 1e-15);
  const double step = before == numbers.end() ? 0 : alpha / (1 + std::exp(-mean)) * (1 - now);
  now = std::min(1.0, std::max(t_start + (1 - t_start) * progress, now + step));
  numbers[t + ".loss"] = loss;
}

Objective sum_of(std::vector<ObjectivePart> parts, std::vector<int64_t> blocks) {
  return [parts = std::move(parts), blocks = std::move(blocks)](
             CausalLM& model, const Batch& batch, std::span<const int64_t> windows, const ForwardOptions& options) {
    Forwarded student{.model = model, .batch = batch, .windows = windows, .hidden = {}, .states = {}};
    ForwardOptions keeping = options;
    if (!blocks.empty())
      keeping.after_block = [&](int64_t block, const at::Tensor& state) {
        if (std::find(blocks.begin(), blocks.end(), block) != blocks.end()) student.states[block] = state;
      };
    student.hidden = model.hidden(batch, keeping);
    at::Tensor sum;
    for (const ObjectivePart& part : parts) sum = sum.defined() ? sum + part(student) : part(student);
    return sum;
  };
}

ObjectivePart cross_entropy_part(double weight) {
  return [weight](const Forwarded& student) {
    return student.model.cross_entropy(student.hidden, student.batch.labels) * weight;
  };
}

ObjectivePart divergence_part(TargetSource source, const DivergenceOptions& options,
                              std::shared_ptr<ObjectiveState> state, const std::string& name) {
  const std::string t = key(name, "taid_t");
  if (options.loss->interpolates && !state->numbers.contains(t)) {
    state->numbers[t] = options.parameter;
    const TaidSchedule schedule{.t = t, .t_start = options.parameter};
    // The state outlives its own function: a plain pointer, for a shared one would keep it for ever.
    state->after_update.push_back(
        [schedule, s = state.get()](double progress, double loss) { schedule.update(s->numbers, progress, loss); });
  }
  return [=](const Forwarded& student) {
    DivergenceOptions now = options;
    if (options.loss->interpolates) now.parameter = state->numbers.at(t);
    DivergenceRows rows;
    const at::Tensor sum = linear_divergence(head_of(student.model), student.hidden, student.batch.labels,
                                             source(student.batch, student.windows), now, &rows);
    const at::Tensor sums = at::stack({rows.divergence, rows.cross_entropy, rows.agrees}).sum(1).cpu();
    const char* const names[] = {"divergence", "cross_entropy", "agreement"};
    for (int64_t i = 0; i < 3; ++i) state->sums[key(name, names[i])] += sums[i].item<double>();
    return sum;
  };
}

void DivergenceSums::add(const DivergenceRows& measured, const Batch& batch) {
  const at::Tensor all = at::stack({measured.divergence, measured.cross_entropy, measured.agrees, measured.tail_mass,
                                    measured.tail_divergence})
                             .cpu();
  const at::Tensor sums = all.sum(1), labels = batch.labels.cpu().contiguous();
  divergence += sums[0].item<double>();
  cross_entropy += sums[1].item<double>();
  agreements += sums[2].item<double>();
  tail_mass += sums[3].item<double>();
  tail_divergence += sums[4].item<double>();
  const auto* label = labels.const_data_ptr<int64_t>();
  const auto* value = all.const_data_ptr<double>();
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d)
    for (int64_t i = batch.offsets[d]; i < batch.offsets[d + 1]; ++i) {
      if (label[i] < 0) continue;
      const auto end = std::upper_bound(position_ends.begin(), position_ends.end(), i - batch.offsets[d]);
      const auto bucket = static_cast<size_t>(end - position_ends.begin());
      ++rows;
      ++rows_at[bucket];
      divergence_at[bucket] += *value++;
    }
}

Json DivergenceSums::to_json() const {
  const auto mean = [](double sum, int64_t n) { return n > 0 ? Json(sum / static_cast<double>(n)) : Json(nullptr); };
  Json by_position = Json::array();
  for (size_t i = 0; i < rows_at.size(); ++i)
    by_position.push_back({{"from", i ? position_ends[i - 1] : 0},
                           {"tokens", rows_at[i]},
                           {"divergence", mean(divergence_at[i], rows_at[i])}});
  return {{"tokens", rows},
          {"divergence", mean(divergence, rows)},
          {"cross_entropy", mean(cross_entropy, rows)},
          {"agreement", mean(agreements, rows)},
          {"tail_mass", mean(tail_mass, rows)},
          {"tail_divergence", mean(tail_divergence, rows)},
          {"by_position", by_position}};
}

DivergenceSums measure_divergence(CausalLM& student, const PackedDataset& data, const TargetSource& source,
                                  const DivergenceOptions& options, int64_t windows_per_batch) {
  const at::NoGradGuard no_grad;
  DivergenceSums sums;
  for (int64_t begin = 0; begin < data.windows(); begin += windows_per_batch) {
    std::vector<int64_t> windows(static_cast<size_t>(std::min(windows_per_batch, data.windows() - begin)));
    std::iota(windows.begin(), windows.end(), begin);
    Batch batch = data.batch(windows);
    batch.ids = batch.ids.to(student.device());
    DivergenceRows rows;
    linear_divergence(head_of(student), student.hidden(batch), batch.labels, source(batch, windows), options, &rows);
    sums.add(rows, batch);
  }
  return sums;
}

}  // namespace retort
