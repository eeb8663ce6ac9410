#include "adapters/attach.h"

#include <set>

#include "core/error.h"
#include "core/schema.h"

namespace retort {

#define KIND(name) extern const AdapterKind adapter_##name;
#include "adapter_kinds.inc"
#undef KIND

const std::vector<const AdapterKind*>& adapter_kinds() {
  static const std::vector<const AdapterKind*> kinds = {
#define KIND(name) &adapter_##name,
#include "adapter_kinds.inc"
#undef KIND
  };
  return kinds;
}

const AdapterKind& adapter_kind(const std::string& name) {
  std::vector<std::string> known;
  for (const AdapterKind* kind : adapter_kinds()) {
    if (name == kind->name) return *kind;
    known.emplace_back(kind->name);
  }
  fail(Exit::usage, "kind: {}", not_among(name, known));
}

namespace {

std::vector<Target> targets_of(const std::vector<Linear*>& linears, const AdapterOptions& options) {
  std::vector<std::string> names;
  for (const Linear* linear : linears) names.push_back(linear->name);
  return match_targets(options, names, names.back());  // the head comes last
}

}  // namespace

OriginalWeight original_weights(const Checkpoint& checkpoint) {
  const Checkpoint* before = checkpoint.unquantized();
  if (!before) return {};
  return [before](const std::string& name) { return before->tensor(name).dequantize(at::kFloat); };
}

AttachReport plan_adapters(CausalLM& model, const AdapterOptions& options) {
  const AdapterKind& kind = adapter_kind(options.kind);
  const std::vector<Linear*> linears = model.linears();
  AttachReport report;
  report.frozen = model.parameter_count();
  for (const Target& target : targets_of(linears, options)) {
    const Linear& linear = *linears[target.index];
    report.targets.push_back(linear.name);
    report.ranks.push_back(target.r);
    report.trainable += kind.parameters(linear, options, target);
  }
  return report;
}

AttachReport attach(CausalLM& model, const AdapterOptions& options, uint64_t seed, const OriginalWeight& original) {
  AttachReport report = plan_adapters(model, options);
  const AdapterKind& kind = adapter_kind(options.kind);
  const at::ScalarType parameter = model.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  detach(model);
  const std::vector<Linear*> linears = model.linears();
  const std::vector<Target> targets = targets_of(linears, options);
  std::vector<const Linear*> all;
  for (const Target& target : targets) all.push_back(linears[target.index]);
  std::any shared;
  for (const Target& target : targets) {
    Linear& linear = *linears[target.index];
    linear.adapter = kind.make({linear, options, target, parameter, model.device(), seed, all, shared, original});
  }
  return report;
}

void detach(CausalLM& model) {
  for (Linear* linear : model.linears()) linear->adapter.reset();
}

std::vector<Parameter> trainable_parameters(CausalLM& model) {
  std::vector<Parameter> parameters;
  for (Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    for (Parameter& parameter : linear->adapter->parameters()) parameters.push_back(std::move(parameter));
  }
  return parameters;
}

std::vector<Parameter> shared_tensors(CausalLM& model) {
  std::vector<Parameter> shared;
  std::set<std::string> seen;
  for (Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    for (Parameter& tensor : linear->adapter->shared())
      if (seen.insert(tensor.name).second) shared.push_back(std::move(tensor));
  }
  return shared;
}

void set_micro_step(CausalLM& model, uint64_t micro_step) {
  for (Linear* linear : model.linears())
    if (linear->adapter) linear->adapter->set_micro_step(micro_step);
}

}  // namespace retort
