// Puts adapters on a model's linear layers and lists what is trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/match.h"
#include "adapters/options.h"
#include "models/causal_lm.h"

namespace retort {

/// What a kind needs to make one adapter.
struct AdapterPlace {
  const Linear& linear;
  const AdapterOptions& options;
  Target target;             ///< rank and scale after the patterns
  at::ScalarType parameter;  ///< type of the parameters: f32, or f64 on an f64 model
  at::Device device;
  uint64_t seed;  ///< of the run; a layer's numbers depend on it and on the layer's name only
};

/// One kind of adapter: adapters/kinds/<name>.cpp defines `extern const AdapterKind adapter_<name>`.
struct AdapterKind {
  const char* name;
  const char* summary;
  const char* peft_type;  ///< in adapter_config.json
  bool low_rank;  ///< its change is a product b a (LinearAdapter::low_rank), which llama.cpp's adapters can hold
  std::unique_ptr<LinearAdapter> (*make)(const AdapterPlace& place);
  /// Parameters that one adapter adds to a linear layer.
  int64_t (*parameters)(const Linear& linear, const Target& target);
};

const std::vector<const AdapterKind*>& adapter_kinds();
/// Error(usage) with "did you mean" when there is none.
const AdapterKind& adapter_kind(const std::string& name);

struct AttachReport {
  std::vector<std::string> targets;  ///< module names, in module order
  std::vector<int64_t> ranks;        ///< of each target
  int64_t trainable = 0;             ///< parameters
  int64_t frozen = 0;                ///< parameters of the base, a tied head counted once
};

/// What attach would do; changes nothing.
AttachReport plan_adapters(CausalLM& model, const AdapterOptions& options);

/// Attaches one adapter to each target (any older one is dropped). Same seed, same numbers, whatever else is targeted
/// and on whatever device.
AttachReport attach(CausalLM& model, const AdapterOptions& options, uint64_t seed);
void detach(CausalLM& model);

/// Every adapter's parameters, in module order, A before B; the optimizer's and the checkpoints' order.
std::vector<Parameter> trainable_parameters(CausalLM& model);

/// Names the micro-batch that the next forward belongs to. Dropout masks are a function of (seed, this number, layer),
/// so a forward that runs again in backward, or again after a resume, drops the same elements. Call it before each
/// training micro-batch.
void set_micro_step(CausalLM& model, uint64_t micro_step);

}  // namespace retort
