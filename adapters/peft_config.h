// adapter_config.json: what PEFT says of an adapter, to and from AdapterOptions.
#pragma once

#include <string>

#include "adapters/peft.h"
#include "core/json.h"

namespace retort {

/// What PEFT writes; `options` choose their modules by names or an expression, as with_stored_targets gives them.
Json config_json(const AdapterOptions& options, const AdapterOrigin& origin);

/// The options with "all-linear", and whatever else the kind's configuration has no words for, replaced by the names of
/// the model's adapted modules, as short as they can be.
AdapterOptions with_stored_targets(AdapterOptions options, CausalLM& model);

/// Error(bad_input) naming `where`, key, what was found and what to do, for everything that would change what the
/// adapter computes and is not in AdapterOptions.
AdapterOptions read_options(const Json& config, const std::string& where);

// What the kinds' own to_peft and from_peft are made of.

/// A string, a list of strings or null.
ModuleChoice read_choice(const Json& config, const std::string& key, const std::string& where);
/// One value or a list of them, as PEFT writes layers_to_transform and layers_pattern.
template <typename T>
std::vector<T> read_list(const Json& config, const std::string& key, const std::string& where) {
  if (!config.contains(key) || config[key].is_null()) return {};
  if (!config[key].is_array()) return {json_get<T>(config, key, where)};
  std::vector<T> values;
  for (const Json& value : config[key]) values.push_back(json_get<T>(Json{{key, value}}, key, where));
  return values;
}
/// A share from 0 to below 1; 0 where the key is missing.
double read_dropout(const Json& config, const std::string& key, const std::string& where);
/// layers_to_transform and layers_pattern.
void put_layers(const AdapterOptions& options, Json& config);
void get_layers(const Json& config, const std::string& where, AdapterOptions& options);

}  // namespace retort
