// Puts adapters on a model's linear layers and lists what is trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <any>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/match.h"
#include "adapters/options.h"
#include "models/causal_lm.h"

namespace retort {

/// A weight as it was before the base was quantized, f32 [out, in], by its name; empty: not to be had.
using OriginalWeight = std::function<at::Tensor(const std::string& name)>;

/// Of a checkpoint that quantizes while it is read; empty for any other. The checkpoint must outlive it.
OriginalWeight original_weights(const Checkpoint& checkpoint);

/// What a kind needs to make one adapter.
struct AdapterPlace {
  const Linear& linear;
  const AdapterOptions& options;
  Target target;             ///< rank and scale after the patterns
  at::ScalarType parameter;  ///< type of the parameters: options.dtype, or f64 on an f64 model
  at::Device device;
  uint64_t seed;                          ///< of the run; a layer's numbers depend on it and on the layer's name only
  const std::vector<const Linear*>& all;  ///< every layer that gets an adapter
  std::any& shared;                       ///< what the adapters of one model share; empty at the first
  const OriginalWeight& original;
};

/// One kind of adapter: adapters/kinds/<name>.cpp defines `extern const AdapterKind adapter_<name>`.
struct AdapterKind {
  const char* name;
  const char* summary;
  const char* peft_type;              ///< in adapter_config.json
  std::span<const char* const> keys;  ///< of AdapterOptions that it reads, beyond those that choose modules
  std::unique_ptr<LinearAdapter> (*make)(const AdapterPlace& place);
  /// Parameters that one adapter adds to a linear layer.
  int64_t (*parameters)(const Linear& linear, const AdapterOptions& options, const Target& target);
  /// Why llama.cpp's adapters cannot hold it; empty when its change is a product (LinearAdapter::low_rank).
  std::string (*gguf_refusal)(const AdapterOptions& options);
  /// Its own keys of adapter_config.json; from_peft throws Error(bad_input) that names `where` and the key.
  void (*to_peft)(const AdapterOptions& options, Json& config);
  void (*from_peft)(const Json& config, const std::string& where, AdapterOptions& options);
  /// Whether PEFT's configuration of the kind has exclude_modules; where not, the targets are written one by one.
  bool peft_excludes = true;
  /// Whether r is the rank of a product of its own on each weight: at most the weight's smaller dimension.
  bool product_on_each = false;
  /// What LinearAdapter::saved belongs to.
  AdapterOptions (*saved)(AdapterOptions options) = [](AdapterOptions options) { return options; };
};

const std::vector<const AdapterKind*>& adapter_kinds();
/// Error(usage) with "did you mean" when there is none.
const AdapterKind& adapter_kind(const std::string& name);

/// Why the adapters are more than a product B A on each weight, as llama.cpp's adapters and combinations need it; empty
/// when they are not.
std::string more_than_products(const AdapterOptions& options);

/// Error(usage) that names the first weight which has fewer rows or columns than its product would have ranks. It is
/// for what is to be trained: a file may hold more, as a start that was taken from the base doubles the rank.
void check_ranks(CausalLM& model, const AdapterOptions& options);

struct AttachReport {
  std::vector<std::string> targets;  ///< module names, in module order
  std::vector<int64_t> ranks;        ///< of each target
  std::vector<std::string> saved;    ///< modules trained whole
  int64_t trainable = 0;             ///< parameters
  int64_t frozen = 0;                ///< parameters of the base, a tied head counted once
};

/// What attach would do; changes nothing.
AttachReport plan_adapters(CausalLM& model, const AdapterOptions& options);

/// Attaches one adapter to each target (any older one is dropped). Same seed, same numbers, whatever else is targeted
/// and on whatever device.
AttachReport attach(CausalLM& model, const AdapterOptions& options, uint64_t seed, const OriginalWeight& original = {});
void detach(CausalLM& model);

/// Every adapter's parameters, in module order, A before B, the embedding's last; the optimizer's and the checkpoints'
/// order.
std::vector<Parameter> trainable_parameters(CausalLM& model);

/// LinearAdapter::shared of all adapters, each name once.
std::vector<Parameter> shared_tensors(CausalLM& model);

/// Names the micro-batch that the next forward belongs to. Dropout masks are a function of (seed, this number, layer),
/// so a forward that runs again in backward, or again after a resume, drops the same elements. Call it before each
/// training micro-batch.
void set_micro_step(CausalLM& model, uint64_t micro_step);

}  // namespace retort
