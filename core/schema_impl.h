// Behind core/schema.h: a field is an offset and a table of three functions for its type, so that a schema of hundreds
// of fields instantiates almost nothing.
#pragma once

#include "core/schema.h"

namespace retort {

/// How values of one C++ type are read, written and described.
struct ValueType {
  void (*parse)(const Yaml& node, const Check& check, void* value);
  Json (*to_json)(const void* value);
  Json (*json_schema)(const Check& check, const void* standard);  ///< `standard`: the default value, or nullptr
};

class SchemaBase {
 public:
  const std::string& name() const { return name_; }
  void parse_into(const Yaml& node, void* object) const;
  Json to_json(const void* object) const;
  /// Draft 2020-12. `object`: where the defaults come from, else a default-constructed struct.
  Json json_schema(const void* object = nullptr) const;
  std::string markdown() const { return schema_markdown(json_schema()); }

 protected:
  struct Field {
    std::string key, doc;
    Check check;
    size_t offset;
    const ValueType* type;
  };

  SchemaBase(std::string name, std::string doc, std::shared_ptr<const void> defaults)
      : name_(std::move(name)), doc_(std::move(doc)), defaults_(std::move(defaults)) {}
  const void* defaults() const { return defaults_.get(); }
  void add(Field field);
  void add_renamed(std::string peer_key, std::string hint) { renamed_[std::move(peer_key)] = std::move(hint); }
  void add_rule(std::function<void(const void*, const Yaml&)> rule) { rules_.push_back(std::move(rule)); }

 private:
  std::string unknown_key(const std::string& key) const;

  std::string name_, doc_;
  std::shared_ptr<const void> defaults_;
  std::vector<Field> fields_;
  std::map<std::string, std::string> renamed_;
  std::vector<std::function<void(const void*, const Yaml&)>> rules_;
};

template <typename V>
concept HasSchema = requires {
  schema_of(static_cast<V*>(nullptr));
};
template <typename V>
concept HasOwnYaml = requires(const Yaml& node, V& value) {
  from_yaml(node, value);
  json_schema_of(static_cast<V*>(nullptr));
  json_of(value);
};

/// The types that core/schema.cpp knows.
extern const ValueType bool_type, int_type, double_type, string_type, path_type, json_type, yaml_type;
Json nullable_schema(Json schema);

template <typename V>
constexpr ValueType make_value_type() {
  static_assert(HasSchema<V> || HasOwnYaml<V>,
                "a field's type needs schema_of, or its own from_yaml, json_schema_of and json_of (core/schema.h)");
  if constexpr (HasOwnYaml<V>) {
    return {[](const Yaml& node, const Check&, void* value) { from_yaml(node, *static_cast<V*>(value)); },
            [](const void* value) -> Json { return json_of(*static_cast<const V*>(value)); },
            [](const Check&, const void*) -> Json { return json_schema_of(static_cast<V*>(nullptr)); }};
  } else {
    return {
        [](const Yaml& node, const Check&, void* value) {
          schema_of(static_cast<V*>(nullptr)).parse_into(node, value);
        },
        [](const void* value) { return schema_of(static_cast<V*>(nullptr)).to_json(value); },
        [](const Check&, const void* standard) { return schema_of(static_cast<V*>(nullptr)).json_schema(standard); }};
  }
}

template <typename V>
inline constexpr ValueType value_type = make_value_type<V>();
template <>
inline const ValueType& value_type<bool> = bool_type;
template <>
inline const ValueType& value_type<int64_t> = int_type;
template <>
inline const ValueType& value_type<double> = double_type;
template <>
inline const ValueType& value_type<std::string> = string_type;
template <>
inline const ValueType& value_type<std::filesystem::path> = path_type;
template <>
inline const ValueType& value_type<Json> = json_type;
template <>
inline const ValueType& value_type<std::optional<Yaml>> = yaml_type;

template <typename V>
inline constexpr ValueType value_type<std::optional<V>> = {
    [](const Yaml& node, const Check& check, void* value) {
      auto& optional = *static_cast<std::optional<V>*>(value);
      optional.reset();
      if (!node.is_null()) value_type<V>.parse(node, check, &optional.emplace());
    },
    [](const void* value) -> Json {
      const auto& optional = *static_cast<const std::optional<V>*>(value);
      return optional ? value_type<V>.to_json(&*optional) : Json(nullptr);
    },
    [](const Check& check, const void* standard) {
      const auto* optional = static_cast<const std::optional<V>*>(standard);
      return nullable_schema(value_type<V>.json_schema(check, optional && *optional ? &**optional : nullptr));
    }};

template <typename V>
inline constexpr ValueType value_type<std::vector<V>> = {
    [](const Yaml& node, const Check& check, void* value) {
      auto& list = *static_cast<std::vector<V>*>(value);
      list.clear();
      for (const Yaml& item : node.items()) {
        V one{};
        value_type<V>.parse(item, check, &one);
        list.push_back(std::move(one));
      }
    },
    [](const void* value) -> Json {
      Json list = Json::array();
      for (const V& one : *static_cast<const std::vector<V>*>(value)) list.push_back(value_type<V>.to_json(&one));
      return list;
    },
    [](const Check& check, const void*) -> Json {
      return {{"type", "array"}, {"items", value_type<V>.json_schema(check, nullptr)}};
    }};

template <typename V>
inline constexpr ValueType value_type<std::map<std::string, V>> = {
    [](const Yaml& node, const Check& check, void* value) {
      auto& map = *static_cast<std::map<std::string, V>*>(value);
      map.clear();
      for (const auto& [key, item] : node.entries()) value_type<V>.parse(item, check, &map[key]);
    },
    [](const void* value) -> Json {
      Json map = Json::object();
      for (const auto& [key, one] : *static_cast<const std::map<std::string, V>*>(value)) {
        map[key] = value_type<V>.to_json(&one);
      }
      return map;
    },
    [](const Check& check, const void*) -> Json {
      return {{"type", "object"}, {"additionalProperties", value_type<V>.json_schema(check, nullptr)}};
    }};

}  // namespace retort
