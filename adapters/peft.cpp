#include "adapters/peft.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <set>

#include "adapters/peft_config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/schema.h"
#include "models/safetensors.h"

namespace retort {
namespace {

constexpr const char* config_name = "adapter_config.json";
constexpr const char* tensors_name = "adapter_model.safetensors";
constexpr const char* origin_name = "retort.json";
/// What PEFT puts before a module's name.
constexpr const char* prefix = "base_model.model.";

/// And before the name of what all modules share.
constexpr const char* shared_prefix = "base_model.";

AdapterOrigin read_origin(const std::filesystem::path& folder, const Json& config, const std::string& config_where) {
  AdapterOrigin origin;
  const std::filesystem::path path = folder / origin_name;
  if (std::filesystem::exists(path)) {
    const Json json = read_json(path);
    const std::string where = path.string();
    origin.base_hash = json_get<std::string>(json, "base_hash", where, "");
    origin.base_form = json_get<std::string>(json, "base_form", where, "");
    try {
      if (!origin.base_form.empty()) bnb_options(origin.base_form);
    } catch (const Error& error) {
      fail(Exit::bad_input, "{}: base_form: {}", where, error.what());
    }
    origin.template_hash = json_get<std::string>(json, "template_hash", where, "");
    origin.data_hash = json_get<std::string>(json, "data_hash", where, "");
  }
  origin.base = json_get<std::string>(config, "base_model_name_or_path", config_where, "");
  return origin;
}

/// PEFT stores the frozen weight too when the head or the embedding is a target; it must be the one that is there.
bool is_base_weight(const SafetensorsEntry& entry, const SafetensorsFile& file, CausalLM& model) {
  std::map<std::string, const FrozenMatrix*> adapted;
  const auto add = [&](const auto& layer) {
    if (layer.adapter) adapted[prefix + layer.name + ".base_layer.weight"] = &layer.weight;
  };
  for (const Linear* linear : model.linears()) add(*linear);
  add(model.embedding());
  if (const auto found = adapted.find(entry.name); found != adapted.end()) {
    const at::Tensor stored = file.tensor(entry.name), own = (*found->second)();
    if (stored.sizes() == own.sizes() && at::allclose(stored.to(own.options()), own, 1e-2, 1e-3)) return true;
    fail(Exit::bad_input,
         "{}: tensor {} differs from this model's weight: the adapter was trained on another base, or trained that "
         "weight too (then merge it with PEFT)",
         file.path().string(), entry.name);
  }
  return false;
}

/// A tensor of the file on its way into the adapter's own.
struct Destination {
  std::string name;  ///< in the file
  at::Tensor tensor;
};

/// Of what is trained, all; of what is shared, what the file holds: the rest is drawn again from the config's key.
std::vector<Destination> destinations(CausalLM& model, const SafetensorsFile& file) {
  std::vector<Destination> all;
  for (const Parameter& parameter : trainable_parameters(model))
    all.push_back({prefix + parameter.name, parameter.tensor.detach()});
  for (const Parameter& shared : shared_tensors(model))
    if (file.find(shared_prefix + shared.name)) all.push_back({shared_prefix + shared.name, shared.tensor});
  return all;
}

/// Every tensor of the file into the one of its name.
void fill(CausalLM& model, const SafetensorsFile& file) {
  const std::vector<Destination> wanted = destinations(model, file);
  const std::string where = file.path().string();
  std::set<std::string> names;
  for (const auto& [name, tensor] : wanted) {
    names.insert(name);
    const SafetensorsEntry* entry = file.find(name);
    if (!entry)
      fail(Exit::bad_input,
           "{}: tensor {} is missing, though {} targets its module; the two files do not belong together", where, name,
           config_name);
    const std::vector<int64_t> shape = tensor.sizes().vec();
    if (entry->shape != shape)
      fail(Exit::bad_input,
           "{}: tensor {} has shape [{}], expected [{}]; check r and rank_pattern in {}, and that this is the base "
           "model the adapter was trained on",
           where, name, fmt::join(entry->shape, ", "), fmt::join(shape, ", "), config_name);
  }
  for (const SafetensorsEntry& entry : file.entries()) {
    if (names.contains(entry.name) || is_base_weight(entry, file, model)) continue;
    fail(Exit::bad_input,
         "{}: unexpected tensor {}: no module that {} targets has it. If it belongs to the adapter, its target is "
         "missing there; other trained tensors (heads, embeddings, biases) must be merged with PEFT first",
         where, entry.name, config_name);
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : wanted) tensor.copy_(file.weights(name));
}

}  // namespace

PeftConfig read_peft_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / config_name;
  if (!std::filesystem::exists(path))
    fail(Exit::bad_input, "{}: is no PEFT adapter: it holds no {}", folder.string(), config_name);
  const Json config = read_json(path);
  const std::string where = path.string();
  return {read_options(config, where), read_origin(folder, config, where)};
}

void write_peft(const std::filesystem::path& folder, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                const AdapterOptions& options, const AdapterOrigin& origin) {
  AtomicFolder atomic(folder);
  write_safetensors(atomic.temporary() / tensors_name, tensors);
  // PEFT writes its config without a closing newline and with non-ASCII characters escaped.
  write_atomic(atomic.temporary() / config_name, config_json(options, origin).dump(2, ' ', true));
  write_json(atomic.temporary() / origin_name, {{"base", origin.base},
                                                {"base_hash", origin.base_hash},
                                                {"base_form", origin.base_form},
                                                {"template_hash", origin.template_hash},
                                                {"data_hash", origin.data_hash}});
  atomic.commit();
}

void save_peft(const std::filesystem::path& folder, CausalLM& model, const AdapterOptions& options,
               const AdapterOrigin& origin) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const char* before, const Parameter& parameter) {
    const at::ScalarType type =
        parameter.tensor.scalar_type() == at::kDouble ? at::kFloat : parameter.tensor.scalar_type();
    tensors.emplace_back(before + parameter.name, parameter.tensor.detach().to(at::kCPU, type));
  };
  for (const Linear* linear : model.linears())
    if (linear->adapter)
      for (const Parameter& parameter : linear->adapter->saved()) add(prefix, parameter);
  if (const auto& adapter = model.embedding().adapter)
    for (const Parameter& parameter : adapter->parameters()) add(prefix, parameter);
  for (const Parameter& shared : shared_tensors(model)) add(shared_prefix, shared);
  if (tensors.empty()) fail(Exit::internal, "{}: the model has no adapter to save", folder.string());

  write_peft(folder, tensors, with_stored_targets(adapter_kind(options.kind).saved(options), model), origin);
}

LoadedAdapter load_peft(const std::filesystem::path& folder, CausalLM& model, const std::string& base_hash) {
  const PeftConfig config = read_peft_config(folder);
  LoadedAdapter loaded{config.options, config.origin, {}};
  if (!base_hash.empty() && !loaded.origin.base_hash.empty() && base_hash != loaded.origin.base_hash)
    fail(Exit::bad_input,
         "{}: the adapter was trained on another base: {} says base_hash {}, this model's is {}. Use {}, or remove "
         "base_hash from {} if the two are known to be the same",
         folder.string(), origin_name, loaded.origin.base_hash, base_hash,
         loaded.origin.base.empty() ? "that base" : loaded.origin.base, origin_name);
  const std::filesystem::path path = folder / tensors_name;
  if (!std::filesystem::exists(path)) {
    const bool pickle = std::filesystem::exists(folder / "adapter_model.bin");
    fail(Exit::bad_input, "{}: {} is missing{}", folder.string(), tensors_name,
         pickle ? "; adapter_model.bin can run code when it is read, so load it with PEFT and save it again" : "");
  }
  const auto file = SafetensorsFile::open(path);
  try {
    loaded.report = attach(model, loaded.options, 0);
    fill(model, *file);
  } catch (const Error& error) {
    detach(model);
    // What the recipe would be blamed for is the file's fault here.
    if (error.exit() == Exit::usage) fail(Exit::bad_input, "{}: {}", (folder / config_name).string(), error.what());
    throw;
  }
  return loaded;
}

}  // namespace retort
