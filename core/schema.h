// One description of an options struct serves parsing, the JSON Schema, the generated reference page and the resolved
// recipe.
//
//   struct LoraOptions { int64_t r = 16; std::optional<double> dropout; };
//   inline const Schema<LoraOptions>& schema_of(LoraOptions*) {
//     static const auto schema = Schema<LoraOptions>("adapter", "A low-rank adapter.")
//         .field("r", &LoraOptions::r, "rank of the update", {.minimum = 1})
//         .field("dropout", &LoraOptions::dropout, "share of inputs dropped", {.minimum = 0, .maximum = 1})
//         .renamed("lora_r", "r")          // a peer's name: an error that says ours
//         .rule([](const LoraOptions& o, const Yaml& node) { if (…) node.refuse("…"); });
//     return schema;
//   }
//   auto options = from_yaml<LoraOptions>(node);   // unknown keys, wrong types, ranges: all of them in one
//   Error(usage) Json resolved = to_json(options);              // every key with its value Json schema =
//   schema_of((LoraOptions*)nullptr).json_schema();
//
// Defaults are those of a default-constructed struct; a null section is an empty one. Member types: bool, int64_t,
// double, std::string, std::filesystem::path, Json (anything, untyped), std::optional<Yaml> (anything, to be read
// later), std::optional<V> (null allowed), std::vector<V>, std::map<std::string, V>, any struct with schema_of, and any
// type with its own `void from_yaml(const Yaml&, V&)`, `Json json_schema_of(V*)` and `Json json_of(const V&)` found by
// argument-dependent lookup.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "core/yaml.h"

namespace retort {

/// What a field's value must satisfy, beyond its type; of a list or map, what each of its values must. Bounds are
/// inclusive unless *_open.
struct Check {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool minimum_open = false;
  bool maximum_open = false;
  std::vector<std::string> one_of = {};  ///< for strings
  bool required = false;
};

/// The nearest of `allowed` to `word` by edit distance, or "" when none is near: for "did you mean".
std::string did_you_mean(const std::string& word, const std::vector<std::string>& allowed);

/// "found "lroa"; allowed: lora, dora; did you mean lora?" for any choice among names.
std::string not_among(const std::string& found, const std::vector<std::string>& allowed);

/// The reference page of a JSON Schema as json_schema() makes it: one table (key, type, default, meaning) a section.
std::string schema_markdown(const Json& schema);

}  // namespace retort

#include "core/schema_impl.h"

namespace retort {

/// The description of the struct T; see the top of this file.
template <typename T>
class Schema : public SchemaBase {
 public:
  Schema(std::string name, std::string doc) : SchemaBase(std::move(name), std::move(doc), std::make_shared<T>()) {}

  template <typename V, typename Base>
  Schema& field(std::string key, V Base::*member, std::string doc, Check check = {}) {
    const T& defaults = *static_cast<const T*>(this->defaults());
    const auto offset = reinterpret_cast<const char*>(&(defaults.*member)) - reinterpret_cast<const char*>(&defaults);
    add({std::move(key), std::move(doc), std::move(check), static_cast<size_t>(offset), &value_type<V>});
    return *this;
  }

  /// A key that peers use: the error says what it is called here (`hint` is a key, or a sentence when it holds a
  /// space).
  Schema& renamed(std::string peer_key, std::string hint) {
    add_renamed(std::move(peer_key), std::move(hint));
    return *this;
  }

  /// Runs after all fields are read; calls node.refuse (or node["key"].refuse) when values do not go together.
  Schema& rule(std::function<void(const T&, const Yaml&)> check) {
    add_rule([check](const void* object, const Yaml& node) { check(*static_cast<const T*>(object), node); });
    return *this;
  }

  T parse(const Yaml& node) const {
    T value;
    parse_into(node, &value);
    return value;
  }
};

/// The struct T from a map; Error(usage) with one line for each thing that is wrong.
template <typename T>
T from_yaml(const Yaml& node) {
  T value{};
  value_type<T>.parse(node, Check{}, &value);
  return value;
}

/// Every key with its value, in the order of the schema.
template <typename T>
requires HasSchema<T> Json to_json(const T& value) { return schema_of(static_cast<T*>(nullptr)).to_json(&value); }

}  // namespace retort
