#include "adapters/peft.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

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

/// 16.0 -> 16: PEFT's own files hold whole numbers.
Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

/// The list that PEFT would store for "all-linear": the targets' last segments where those choose the same modules,
/// else whole names.
std::vector<std::string> stored_targets(const AdapterOptions& options, CausalLM& model) {
  std::vector<std::string> names, targets;
  std::set<std::string> segments;
  for (const Linear* linear : model.linears()) {
    names.push_back(linear->name);
    if (!linear->adapter) continue;
    targets.push_back(linear->name);
    segments.insert(linear->name.substr(linear->name.rfind('.') + 1));
  }
  AdapterOptions by_segment = options;
  by_segment.target_modules = {.expression = "", .names = {segments.begin(), segments.end()}};
  std::vector<std::string> chosen;
  for (const Target& target : match_targets(by_segment, names)) chosen.push_back(names[target.index]);
  return chosen == targets ? by_segment.target_modules.names : targets;
}

Json config_json(const AdapterOptions& options, CausalLM& model, const AdapterOrigin& origin) {
  Json config;  // sorted, as json.dumps(sort_keys=True) writes it
  Json alphas = Json::object();
  for (const auto& [pattern, alpha] : options.alpha_pattern) alphas[pattern] = number(alpha);
  config["alpha_pattern"] = alphas;
  config["auto_mapping"] = nullptr;
  config["base_model_name_or_path"] = origin.base.empty() ? Json(nullptr) : Json(origin.base);
  config["bias"] = options.bias;
  config["exclude_modules"] = json_of(options.exclude_modules);
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["init_lora_weights"] = json_of(options.init_lora_weights);
  config["layers_pattern"] = options.layers_pattern.empty() ? Json(nullptr) : Json(options.layers_pattern);
  config["layers_to_transform"] =
      options.layers_to_transform.empty() ? Json(nullptr) : Json(options.layers_to_transform);
  config["lora_alpha"] = number(options.lora_alpha);
  config["lora_dropout"] = options.lora_dropout;
  config["modules_to_save"] = nullptr;
  config["peft_type"] = adapter_kind(options.kind).peft_type;
  config["r"] = options.r;
  config["rank_pattern"] = options.rank_pattern;
  config["revision"] = nullptr;
  config["target_modules"] =
      options.target_modules.all_linear() ? Json(stored_targets(options, model)) : json_of(options.target_modules);
  config["task_type"] = "CAUSAL_LM";
  config["use_dora"] = false;
  config["use_rslora"] = options.use_rslora;
  return config;
}

// Reading
// ------------------------------------------------------------------------------------------------------------------

/// null, false, "", [] and {}: what a key says that is not used.
bool unused(const Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         ((value.is_array() || value.is_object() || value.is_string()) && value.empty());
}

/// Keys that adapter_config.json may hold beyond those that are read, and what to do about the ones that change the
/// result.
struct Refused {
  const char* key;
  const char* advice;
};
constexpr Refused refused_keys[] = {
    {"use_dora",
     "DoRA's magnitudes have no place here; merge the adapter into the base with PEFT and use the merged model"},
    {"lora_bias", "biases of B are not supported; merge the adapter with PEFT"},
    {"modules_to_save",
     "modules trained whole are not supported; merge the adapter with PEFT and use the merged model as base"},
    {"fan_in_fan_out", "transposed weights are for Conv1D layers, which no supported family has"},
    {"trainable_token_indices", "trained token rows are not supported; merge the adapter with PEFT"},
    {"target_parameters", "adapters on bare parameters are not supported"},
    {"layer_replication", "replicated layers are not supported; merge the adapter with PEFT"},
    {"alora_invocation_tokens", "activated LoRA is not supported"},
    {"use_qalora", "QA-LoRA is not supported"},
    {"use_bdlora", "BD-LoRA is not supported"},
    {"loftq_config", "LoftQ changes the base weights; save the base it made and point at that"},
    {"ensure_weight_tying", "an adapter shared between embedding and head is not supported"},
    {"arrow_config", "Arrow routing is not supported"},
    {"kasa_config", "KaSA is not supported"},
    {"velora_config", "VeLoRA is not supported"},
    {"monteclora_config", "MonteCLoRA is not supported"},
    {"megatron_config", "Megatron layers are not supported"},
};
/// Keys that are read, or that change nothing once the adapter is trained.
const std::set<std::string> known_keys = {"alpha_pattern",
                                          "auto_mapping",
                                          "base_model_name_or_path",
                                          "bias",
                                          "exclude_modules",
                                          "inference_mode",
                                          "init_lora_weights",
                                          "layers_pattern",
                                          "layers_to_transform",
                                          "lora_alpha",
                                          "lora_dropout",
                                          "peft_type",
                                          "peft_version",
                                          "r",
                                          "rank_pattern",
                                          "revision",
                                          "target_modules",
                                          "task_type",
                                          "use_rslora",
                                          "megatron_core",
                                          "qalora_group_size",
                                          "runtime_config",
                                          "eva_config",
                                          "corda_config",
                                          "lora_ga_config"};

void refuse_keys(const Json& config, const std::string& where) {
  for (const Refused& refused : refused_keys)
    if (config.contains(refused.key) && !unused(config[refused.key]))
      fail(Exit::bad_input, "{}: {} is {}: {}", where, refused.key, config[refused.key].dump().substr(0, 80),
           refused.advice);
  for (const auto& [key, value] : config.items()) {
    const bool known =
        known_keys.contains(key) || std::any_of(std::begin(refused_keys), std::end(refused_keys),
                                                [&](const Refused& refused) { return key == refused.key; });
    if (!known && !unused(value))
      fail(Exit::bad_input,
           "{}: key \"{}\" is {}, which Retort does not know and so cannot honour; remove it if the adapter does "
           "not depend on it",
           where, key, value.dump().substr(0, 80));
  }
}

/// A string, a list of strings or null.
ModuleChoice read_choice(const Json& config, const std::string& key, const std::string& where) {
  ModuleChoice choice;
  if (!config.contains(key) || config[key].is_null()) return choice;
  const Json& value = config[key];
  if (value.is_string()) {
    choice.expression = value.get<std::string>();
  } else if (value.is_array()) {
    for (const Json& name : value) {
      if (!name.is_string())
        fail(Exit::bad_input, "{}: {} holds {}, expected names", where, key, name.dump().substr(0, 80));
      choice.names.push_back(name.get<std::string>());
    }
    std::sort(choice.names.begin(), choice.names.end());  // PEFT keeps a set, whose order means nothing
  } else {
    fail(Exit::bad_input, "{}: {} is {}, expected a list of names or a regular expression", where, key,
         value.dump().substr(0, 80));
  }
  return choice;
}

/// One value or a list of them, as PEFT writes layers_to_transform and layers_pattern.
template <typename T>
std::vector<T> read_one_or_more(const Json& config, const std::string& key, const std::string& where) {
  if (!config.contains(key) || config[key].is_null()) return {};
  if (!config[key].is_array()) return {json_get<T>(config, key, where)};
  std::vector<T> values;
  for (const Json& value : config[key]) values.push_back(json_get<T>(Json{{key, value}}, key, where));
  return values;
}

template <typename T>
std::map<std::string, T> read_pattern(const Json& config, const std::string& key, const std::string& where) {
  std::map<std::string, T> pattern;
  if (!config.contains(key) || config[key].is_null()) return pattern;
  if (!config[key].is_object())
    fail(Exit::bad_input, "{}: {} is {}, expected an object", where, key, config[key].dump().substr(0, 80));
  for (const auto& [name, value] : config[key].items())
    pattern[name] = json_get<T>(config[key], name, where + ": " + key);
  return pattern;
}

AdapterOptions read_options(const Json& config, const std::string& where) {
  AdapterOptions options;
  const auto type = json_get<std::string>(config, "peft_type", where);
  std::vector<std::string> types;
  for (const AdapterKind* kind : adapter_kinds()) {
    types.emplace_back(kind->peft_type);
    if (type == kind->peft_type) options.kind = kind->name;
  }
  if (std::find(types.begin(), types.end(), type) == types.end())
    fail(Exit::bad_input, "{}: peft_type {}", where, not_among(type, types));
  refuse_keys(config, where);
  const auto task = json_get<std::string>(config, "task_type", where, "CAUSAL_LM");
  if (task != "CAUSAL_LM") fail(Exit::bad_input, "{}: task_type is \"{}\", allowed: CAUSAL_LM", where, task);
  options.bias = json_get<std::string>(config, "bias", where, "none");
  if (options.bias != "none")
    fail(Exit::bad_input, "{}: bias is \"{}\", allowed: none. Merge the adapter with PEFT to keep its biases", where,
         options.bias);

  // PEFT takes 8 for each of the first two when they are missing; an adapter whose scale is a guess is refused here.
  options.r = json_get<int64_t>(config, "r", where);
  options.lora_alpha = json_get<double>(config, "lora_alpha", where);
  options.lora_dropout = json_get<double>(config, "lora_dropout", where, 0.0);
  options.use_rslora = json_get<bool>(config, "use_rslora", where, false);
  if (options.r < 1 || options.r > 65536) fail(Exit::bad_input, "{}: r is {}, allowed: 1 to 65536", where, options.r);
  if (!(options.lora_alpha > 0))
    fail(Exit::bad_input, "{}: lora_alpha is {}, allowed: above 0", where, options.lora_alpha);
  if (!(options.lora_dropout >= 0 && options.lora_dropout < 1))
    fail(Exit::bad_input, "{}: lora_dropout is {}, allowed: 0 to below 1", where, options.lora_dropout);

  options.target_modules = read_choice(config, "target_modules", where);
  if (options.target_modules.empty())
    fail(Exit::bad_input, "{}: target_modules is missing or empty; name the modules that the adapter's tensors are for",
         where);
  options.exclude_modules = read_choice(config, "exclude_modules", where);
  options.layers_to_transform = read_one_or_more<int64_t>(config, "layers_to_transform", where);
  options.layers_pattern = read_one_or_more<std::string>(config, "layers_pattern", where);
  std::erase(options.layers_pattern, "");
  if (options.layers_to_transform.empty()) options.layers_pattern.clear();  // counts for nothing then
  options.rank_pattern = read_pattern<int64_t>(config, "rank_pattern", where);
  options.alpha_pattern = read_pattern<double>(config, "alpha_pattern", where);

  // These leave the base as it is, so that the stored A and B are the whole adapter.
  const std::vector<Json> plain = {nullptr, true, false, "gaussian", "eva", "orthogonal"};
  const Json init = config.contains("init_lora_weights") ? config["init_lora_weights"] : Json(true);
  if (std::find(plain.begin(), plain.end(), init) == plain.end())
    fail(Exit::bad_input,
         "{}: init_lora_weights is {}, which changes the base weights when PEFT loads it; save it again as a plain "
         "LoRA (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))",
         where, init.dump().substr(0, 80));
  return options;
}

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

/// PEFT stores the frozen weight too when the head is a target; it must be the one that is there.
bool is_base_weight(const SafetensorsEntry& entry, const SafetensorsFile& file, CausalLM& model) {
  for (const Linear* linear : model.linears()) {
    if (!linear->adapter || entry.name != prefix + linear->name + ".base_layer.weight") continue;
    const at::Tensor stored = file.tensor(entry.name), own = linear->weight();
    if (stored.sizes() == own.sizes() && at::allclose(stored.to(own.options()), own, 1e-2, 1e-3)) return true;
    fail(Exit::bad_input,
         "{}: tensor {} differs from this model's weight: the adapter was trained on another base, or trained that "
         "weight too (then merge it with PEFT)",
         file.path().string(), entry.name);
  }
  return false;
}

/// Every tensor of the file into the parameter of its name.
void fill(CausalLM& model, const SafetensorsFile& file) {
  const std::vector<Parameter> parameters = trainable_parameters(model);
  const std::string where = file.path().string();
  std::set<std::string> wanted;
  for (const Parameter& parameter : parameters) {
    const std::string name = prefix + parameter.name;
    wanted.insert(name);
    const SafetensorsEntry* entry = file.find(name);
    if (!entry)
      fail(Exit::bad_input,
           "{}: tensor {} is missing, though {} targets its module; the two files do not belong together", where, name,
           config_name);
    const std::vector<int64_t> shape = parameter.tensor.sizes().vec();
    if (entry->shape != shape)
      fail(Exit::bad_input,
           "{}: tensor {} has shape [{}], expected [{}]; check r and rank_pattern in {}, and that this is the base "
           "model the adapter was trained on",
           where, name, fmt::join(entry->shape, ", "), fmt::join(shape, ", "), config_name);
    if (!at::isFloatingType(entry->type) || at::elementSize(entry->type) < 2)
      fail(Exit::bad_input, "{}: tensor {} is of type {}, allowed: F64, F32, F16, BF16", where, name, entry->dtype);
  }
  for (const SafetensorsEntry& entry : file.entries()) {
    if (wanted.contains(entry.name) || is_base_weight(entry, file, model)) continue;
    fail(Exit::bad_input,
         "{}: unexpected tensor {}: no module that {} targets has it. If it belongs to the adapter, its target is "
         "missing there; other trained tensors (heads, embeddings, biases) must be merged with PEFT first",
         where, entry.name, config_name);
  }
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : parameters) {
    const at::Tensor value = file.tensor(prefix + parameter.name);
    if (!at::isfinite(value).all().item<bool>())
      fail(Exit::bad_input, "{}: tensor {} holds numbers that are not finite", where, prefix + parameter.name);
    parameter.tensor.detach().copy_(value);
  }
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

void save_peft(const std::filesystem::path& folder, CausalLM& model, const AdapterOptions& options,
               const AdapterOrigin& origin) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const Parameter& parameter : trainable_parameters(model))
    tensors.emplace_back(prefix + parameter.name, parameter.tensor.detach().to(at::kCPU, at::kFloat));
  if (tensors.empty()) fail(Exit::internal, "{}: the model has no adapter to save", folder.string());

  AtomicFolder atomic(folder);
  write_safetensors(atomic.temporary() / tensors_name, tensors);
  // PEFT writes its config without a closing newline and with non-ASCII characters escaped.
  write_atomic(atomic.temporary() / config_name, config_json(options, model, origin).dump(2, ' ', true));
  write_json(atomic.temporary() / origin_name, {{"base", origin.base},
                                                {"base_hash", origin.base_hash},
                                                {"base_form", origin.base_form},
                                                {"template_hash", origin.template_hash},
                                                {"data_hash", origin.data_hash}});
  atomic.commit();
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
