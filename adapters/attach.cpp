#include "adapters/attach.h"

#include <algorithm>
#include <set>

#include "adapters/embedding.h"
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

/// Whose adapter an index of `names` stands for: the linear layers in module order, then the embedding.
struct Places {
  explicit Places(CausalLM& model) : linears(model.linears()), embedding(model.embedding()) {
    for (const Linear* linear : linears) names.push_back(linear->name);
    names.push_back(embedding.name);
  }
  bool is_embedding(size_t index) const { return index == linears.size(); }
  std::vector<Linear*> linears;
  Embedding& embedding;
  std::vector<std::string> names;
};

/// PEFT's rule for modules_to_save: the end of the name, whole parts or not.
std::vector<size_t> saved_modules(const AdapterOptions& options, const Places& places) {
  std::vector<size_t> saved;
  for (const std::string& module : options.modules_to_save) {
    const size_t before = saved.size();
    for (size_t i = 0; i < places.names.size(); ++i)
      if (places.names[i].ends_with(module) && std::find(saved.begin(), saved.end(), i) == saved.end())
        saved.push_back(i);
    if (saved.size() == before)
      fail(Exit::usage,
           "modules_to_save: \"{}\" is no module that can be trained whole; allowed: lm_head, embed_tokens and the "
           "linear layers (norms stay frozen)",
           module);
  }
  return saved;
}

/// What the adapter's kind goes to; modules that are trained whole are left out.
std::vector<Target> targets_of(const Places& places, const AdapterOptions& options) {
  const std::vector<size_t> saved = saved_modules(options, places);
  std::vector<Target> targets = match_targets(options, places.names, places.linears.back()->name);
  std::erase_if(targets, [&](const Target& target) {
    return std::find(saved.begin(), saved.end(), target.index) != saved.end();
  });
  for (const Target& target : targets)
    if (places.is_embedding(target.index) && options.kind != "lora")
      fail(Exit::usage, "target_modules: {}: \"{}\" adapters are for linear layers; use kind: lora, or leave it out",
           places.embedding.name, options.kind);
  const auto embedding = [&](size_t index) { return places.is_embedding(index); };
  if (!options.trainable_token_indices.empty() &&
      (std::any_of(saved.begin(), saved.end(), embedding) ||
       std::any_of(targets.begin(), targets.end(), [&](const Target& target) { return embedding(target.index); })))
    fail(
        Exit::usage,
        "trainable_token_indices: {} is trained in another way already (target_modules or modules_to_save); choose one",
        places.embedding.name);
  return targets;
}

int64_t whole_size(const Linear& linear) { return linear.out * linear.in + (linear.bias.defined() ? linear.out : 0); }

}  // namespace

std::string more_than_products(const AdapterOptions& options) {
  if (!options.modules_to_save.empty())
    return fmt::format("modules_to_save: {} is trained whole", options.modules_to_save.front());
  if (!options.trainable_token_indices.empty())
    return "trainable_token_indices: rows of the embedding are trained whole";
  return adapter_kind(options.kind).gguf_refusal(options);
}

void check_ranks(CausalLM& model, const AdapterOptions& options) {
  if (!adapter_kind(options.kind).product_on_each) return;
  const Places places(model);
  for (const Target& target : targets_of(places, options)) {
    const bool embedding = places.is_embedding(target.index);
    const int64_t rows = embedding ? places.embedding.vocab : places.linears[target.index]->out,
                  columns = embedding ? places.embedding.dim : places.linears[target.index]->in;
    if (target.r > std::min(rows, columns))
      fail(
          Exit::usage,
          "adapter.r: {} is {} x {} and would get a product of rank {}, but no rank is above {}. Lower r, or give this "
          "module its own: rank_pattern: {{{}: {}}}",
          places.names[target.index], rows, columns, target.r, std::min(rows, columns),
          places.names[target.index].substr(places.names[target.index].rfind('.') + 1), std::min(rows, columns) / 2);
  }
}

OriginalWeight original_weights(const Checkpoint& checkpoint) {
  const Checkpoint* before = checkpoint.unquantized();
  if (!before) return {};
  return [before](const std::string& name) { return before->tensor(name).dequantize(at::kFloat); };
}

AttachReport plan_adapters(CausalLM& model, const AdapterOptions& options) {
  const AdapterKind& kind = adapter_kind(options.kind);
  const Places places(model);
  const Embedding& embedding = places.embedding;
  AttachReport report;
  report.frozen = model.parameter_count();
  for (const Target& target : targets_of(places, options)) {
    report.targets.push_back(places.names[target.index]);
    report.ranks.push_back(target.r);
    report.trainable += places.is_embedding(target.index)
                            ? target.r * (embedding.vocab + embedding.dim)
                            : kind.parameters(*places.linears[target.index], options, target);
  }
  for (const size_t index : saved_modules(options, places)) {
    report.saved.push_back(places.names[index]);
    report.trainable +=
        places.is_embedding(index) ? embedding.vocab * embedding.dim : whole_size(*places.linears[index]);
  }
  report.trainable += static_cast<int64_t>(options.trainable_token_indices.size()) * embedding.dim;
  return report;
}

AttachReport attach(CausalLM& model, const AdapterOptions& options, uint64_t seed, const OriginalWeight& original) {
  AttachReport report = plan_adapters(model, options);
  const AdapterKind& kind = adapter_kind(options.kind);
  const ParameterPlace place{model.dtype() == at::kDouble ? at::kDouble
                             : options.dtype == "bf16"    ? at::kBFloat16
                                                          : at::kFloat,
                             model.device()};
  detach(model);
  const Places places(model);
  Embedding& embedding = places.embedding;
  const std::vector<Target> targets = targets_of(places, options);
  std::vector<const Linear*> all;
  for (const Target& target : targets)
    if (!places.is_embedding(target.index)) all.push_back(places.linears[target.index]);
  std::any shared;
  for (const Target& target : targets) {
    if (places.is_embedding(target.index)) {
      embedding.adapter = embedding_lora(embedding, target, place, seed);
    } else {
      Linear& linear = *places.linears[target.index];
      linear.adapter = kind.make({linear, options, target, place.type, place.device, seed, all, shared, original});
    }
  }
  for (const size_t index : saved_modules(options, places)) {
    if (places.is_embedding(index))
      embedding.adapter = whole_embedding(embedding, place);
    else
      places.linears[index]->adapter = whole_linear(*places.linears[index], place);
  }
  if (!options.trainable_token_indices.empty()) {
    embedding.adapter = embedding_rows(embedding, options.trainable_token_indices, place);
    Linear& head = *places.linears.back();
    if (model.config().tied && head.adapter)
      fail(Exit::usage,
           "trainable_token_indices: the head is the embedding's matrix, so its rows change too; it cannot have an "
           "adapter of its own as well (target_modules or modules_to_save: lm_head)");
    if (model.config().tied) head.adapter = tied_head_rows(*embedding.adapter);
  }
  return report;
}

void detach(CausalLM& model) {
  for (Linear* linear : model.linears()) linear->adapter.reset();
  model.embedding().adapter.reset();
}

std::vector<Parameter> trainable_parameters(CausalLM& model) {
  std::vector<Parameter> parameters;
  for (Linear* linear : model.linears()) {
    if (!linear->adapter) continue;
    for (Parameter& parameter : linear->adapter->parameters()) parameters.push_back(std::move(parameter));
  }
  if (const auto& adapter = model.embedding().adapter)
    for (Parameter& parameter : adapter->parameters()) parameters.push_back(std::move(parameter));
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
