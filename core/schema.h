// One description of an options struct serves parsing, the JSON Schema and the generated reference page.
//
//   struct LoraOptions { int64_t r = 16; std::optional<double> dropout; };
//   inline const Schema<LoraOptions>& schema_of(LoraOptions*) {
//     static const auto schema = Schema<LoraOptions>("adapter", "A low-rank adapter.")
//         .field("r", &LoraOptions::r, "rank of the update", {.minimum = 1})
//         .renamed("lora_r", "r")          // a peer's name: an error that says ours
//     return schema;
//   }
//   auto options = from_yaml<LoraOptions>(node);
//
// Member types: bool, int64_t, double, std::string, std::filesystem::path, Json (anything), std::optional<V>, std::vector<V>,
// std::map<std::string, V>, any struct with schema_of, and any type with its own
// `void from_yaml(const Yaml&, V&)` + `Json json_schema_of(V*)` found by argument-dependent lookup.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/yaml.h"

namespace retort {

/// What a field's value must satisfy, beyond its type. Bounds are inclusive unless *_open.
struct Check {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool minimum_open = false;
  std::vector<std::string> one_of = {};  ///< for strings
  bool required = false;
};

/// The nearest of `allowed` to `word` by edit distance, or "" when none is near: for "did you mean".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& allowed);

}  // namespace retort

#include "core/schema_impl.h"
