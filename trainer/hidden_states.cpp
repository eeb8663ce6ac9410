#include "trainer/hidden_states.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/hash.h"

namespace retort {
namespace {

/// N(0, 1 / in), from the seed and the name alone; drawn on the CPU, so that every device starts from the same numbers.
at::Tensor projection(const std::string& name, int64_t out, int64_t in, uint64_t seed,
                      const at::TensorOptions& options) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  generator.set_current_seed(xxh3(fmt::format("{} {}", seed, name)));
  const at::Tensor drawn = at::randn({out, in}, generator, at::kFloat) / std::sqrt(static_cast<double>(in));
  return drawn.to(options).requires_grad_(true);
}

/// Summed over rows.
at::Tensor distance(HiddenStateOptions::Distance kind, const at::Tensor& student, const at::Tensor& teacher) {
  if (kind == HiddenStateOptions::Distance::cosine) return (1 - at::cosine_similarity(student, teacher, 1)).sum();
  return (student - teacher).square().mean(1).sum();
}

}  // namespace

StateSource states_of(std::shared_ptr<CausalLM> teacher, const std::vector<LayerPair>& layers) {
  return [=](const Batch& batch, std::span<const int64_t>) {
    const at::NoGradGuard no_grad;
    const at::Device device = batch.ids.device();
    Batch there = batch;
    there.ids = batch.ids.to(teacher->device());
    std::vector<at::Tensor> states(layers.size());
    const auto keep = [&](int64_t block, const at::Tensor& state) {
      for (size_t i = 0; i < layers.size(); ++i)
        if (layers[i].teacher == block) states[i] = state.to(device);
    };
    teacher->hidden(there, {.after_block = keep});
    return states;
  };
}

ObjectivePart hidden_states_part(StateSource source, const HiddenStateOptions& options, const CausalLM& student,
                                 const ModelConfig& teacher, std::shared_ptr<ObjectiveState> state) {
  const int64_t width = student.config().dim;
  const auto numbers = at::device(student.device()).dtype(at::toOpMathType(student.dtype()));
  std::vector<at::Tensor> projections;
  for (const LayerPair& pair : options.layers) {
    if (pair.student < 0 || pair.student >= student.config().layers || pair.teacher < 0 ||
        pair.teacher >= teacher.layers)
      fail(Exit::usage,
           "hidden states: no block {} of the student's {} with block {} of the teacher's {}. They count from 0",
           pair.student, student.config().layers, pair.teacher, teacher.layers);
    projections.emplace_back();
    if (!options.project && teacher.dim == width) continue;
    const std::string name = fmt::format("hidden_states.{}.{}", pair.student, pair.teacher);
    projections.back() = projection(name, teacher.dim, width, options.seed, numbers);
    state->parameters.push_back({name, projections.back()});
  }
  if (projections.empty()) fail(Exit::usage, "hidden states: no pair of layers is given");
  return [=](const Forwarded& now) {
    const at::Tensor rows = at::nonzero(now.batch.labels >= 0).squeeze(1).to(now.hidden.device());
    const std::vector<at::Tensor> wanted = source(now.batch, now.windows);
    at::Tensor sum = at::zeros({}, numbers);
    for (size_t i = 0; i < options.layers.size(); ++i) {
      const auto trained = [&](const at::Tensor& x) { return x.index_select(0, rows).to(numbers); };
      const at::Tensor own = trained(now.states.at(options.layers[i].student));
      sum = sum + distance(options.distance, projections[i].defined() ? at::linear(own, projections[i]) : own,
                           trained(wanted[i]));
    }
    sum = sum / static_cast<double>(options.layers.size());
    state->sums["hidden_states"] += sum.item<double>();
    return sum * options.weight;
  };
}

std::vector<int64_t> student_blocks(const HiddenStateOptions& options) {
  std::vector<int64_t> blocks;
  for (const LayerPair& pair : options.layers) blocks.push_back(pair.student);
  return blocks;
}

}  // namespace retort
