#include "adapters/peft_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/schema.h"

namespace retort {
namespace {

/// The list that PEFT would store for "all-linear": the targets' last segments where those choose the same modules,
/// else whole names.
std::vector<std::string> stored_targets(const AdapterOptions& options, CausalLM& model) {
  const std::vector<std::string> targets = plan_adapters(model, options).targets;
  std::vector<std::string> names;
  std::set<std::string> segments;
  for (const Linear* linear : model.linears()) names.push_back(linear->name);
  for (const std::string& target : targets) segments.insert(target.substr(target.rfind('.') + 1));
  AdapterOptions by_segment = options;
  by_segment.target_modules = {.expression = "", .names = {segments.begin(), segments.end()}};
  std::vector<std::string> chosen;
  for (const Target& target : match_targets(by_segment, names)) chosen.push_back(names[target.index]);
  return chosen == targets ? by_segment.target_modules.names : targets;
}

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
    {"fan_in_fan_out", "transposed weights are for Conv1D layers, which no supported family has"},
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

/// Keys that change nothing once the adapter is trained.
const std::set<std::string> idle_keys = {"inference_mode", "peft_version",      "runtime_config", "megatron_core",
                                         "eva_config",     "qalora_group_size", "corda_config",   "lora_ga_config"};

/// Keys that every kind has.
void put_common(const AdapterOptions& options, const AdapterOrigin& origin, Json& config) {
  config["auto_mapping"] = nullptr;
  config["base_model_name_or_path"] = origin.base.empty() ? Json(nullptr) : Json(origin.base);
  config["exclude_modules"] = json_of(options.exclude_modules);
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["modules_to_save"] = options.modules_to_save.empty() ? Json(nullptr) : Json(options.modules_to_save);
  config["peft_type"] = adapter_kind(options.kind).peft_type;
  config["revision"] = nullptr;
  config["target_modules"] = json_of(options.target_modules);
  config["task_type"] = "CAUSAL_LM";
}

void refuse_keys(const Json& config, const AdapterKind& kind, const std::string& where) {
  for (const Refused& refused : refused_keys)
    if (config.contains(refused.key) && !unused(config[refused.key]))
      fail(Exit::bad_input, "{}: {} is {}: {}", where, refused.key, config[refused.key].dump().substr(0, 80),
           refused.advice);
  static const std::set<std::string> common = {
      "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "modules_to_save", "peft_type", "revision",
      "task_type",    "target_modules"};
  Json read;
  kind.to_peft({}, read);
  for (const auto& [key, value] : config.items()) {
    const bool known = common.contains(key) || idle_keys.contains(key) || read.contains(key);
    if (!known && !unused(value))
      fail(Exit::bad_input,
           "{}: key \"{}\" is {}, which Retort does not know and so cannot honour; remove it if the adapter does "
           "not depend on it",
           where, key, value.dump().substr(0, 80));
  }
}

}  // namespace

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

double read_dropout(const Json& config, const std::string& key, const std::string& where) {
  const double share = json_get<double>(config, key, where, 0.0);
  if (!(share >= 0 && share < 1)) fail(Exit::bad_input, "{}: {} is {}, allowed: 0 to below 1", where, key, share);
  return share;
}

void put_layers(const AdapterOptions& options, Json& config) {
  config["layers_pattern"] = options.layers_pattern.empty() ? Json(nullptr) : Json(options.layers_pattern);
  config["layers_to_transform"] =
      options.layers_to_transform.empty() ? Json(nullptr) : Json(options.layers_to_transform);
}

void get_layers(const Json& config, const std::string& where, AdapterOptions& options) {
  options.layers_to_transform = read_list<int64_t>(config, "layers_to_transform", where);
  options.layers_pattern = read_list<std::string>(config, "layers_pattern", where);
  std::erase(options.layers_pattern, "");
  if (options.layers_to_transform.empty()) options.layers_pattern.clear();  // counts for nothing then
}

Json config_json(const AdapterOptions& options, const AdapterOrigin& origin) {
  Json config;  // sorted, as json.dumps(sort_keys=True) writes it
  put_common(options, origin, config);
  const AdapterKind& kind = adapter_kind(options.kind);
  kind.to_peft(options, config);
  if (!kind.peft_excludes) config.erase("exclude_modules");  // as with_stored_targets left it: empty
  return config;
}

AdapterOptions with_stored_targets(AdapterOptions options, CausalLM& model) {
  if (!adapter_kind(options.kind).peft_excludes && !options.exclude_modules.empty()) {
    options.target_modules = {.expression = "", .names = plan_adapters(model, options).targets};
    options.exclude_modules = {};
  } else if (options.target_modules.all_linear()) {
    options.target_modules = {.expression = "", .names = stored_targets(options, model)};
  }
  return options;
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
  if (type == "LORA") options.kind = json_get<bool>(config, "use_dora", where, false) ? "dora" : "lora";
  const AdapterKind& kind = adapter_kind(options.kind);
  refuse_keys(config, kind, where);
  const auto task = json_get<std::string>(config, "task_type", where, "CAUSAL_LM");
  if (task != "CAUSAL_LM") fail(Exit::bad_input, "{}: task_type is \"{}\", allowed: CAUSAL_LM", where, task);
  options.bias = json_get<std::string>(config, "bias", where, "none");
  if (options.bias != "none")
    fail(Exit::bad_input, "{}: bias is \"{}\", allowed: none. Merge the adapter with PEFT to keep its biases", where,
         options.bias);
  options.target_modules = read_choice(config, "target_modules", where);
  if (options.target_modules.empty())
    fail(Exit::bad_input, "{}: target_modules is missing or empty; name the modules that the adapter's tensors are for",
         where);
  options.exclude_modules = read_choice(config, "exclude_modules", where);
  options.modules_to_save = read_list<std::string>(config, "modules_to_save", where);
  kind.from_peft(config, where, options);
  if (options.r < 1 || options.r > 65536) fail(Exit::bad_input, "{}: r is {}, allowed: 1 to 65536", where, options.r);
  if (!(options.lora_alpha > 0))
    fail(Exit::bad_input, "{}: lora_alpha is {}, allowed: above 0", where, options.lora_alpha);
  return options;
}

}  // namespace retort
