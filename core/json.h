// JSON through nlohmann-json, with errors that say where.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/error.h"

/// Compiled once, in json.cpp: it would be an eighth of the time of every file that reads a key.
extern template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace retort {

/// Objects keep the order in which their keys were written. Looking up a key is linear: go through an object of
/// thousands of keys (a vocabulary) with items(), never with find().
using Json = nlohmann::ordered_json;

/// Parses; Error(bad_input) names `where`, the line and the column, and what was found. Deep nesting and
/// duplicate keys are refused.
Json parse_json(std::string_view text, const std::string& where);
Json read_json(const std::filesystem::path& path);
/// Writes with two-space indentation and a closing newline, atomically.
void write_json(const std::filesystem::path& path, const Json& value);

/// Whether get<T>() keeps the value: nlohmann's own would turn 1.5, true and 2^64 - 1 into int64_t without a word.
template <typename T>
bool json_holds(const Json& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.is_boolean();
  } else if constexpr (std::is_integral_v<T>) {
    if (value.is_number_unsigned()) return std::in_range<T>(value.get<uint64_t>());
    return value.is_number_integer() && std::in_range<T>(value.get<int64_t>());
  } else if constexpr (std::is_floating_point_v<T>) {
    return value.is_number();
  } else {
    return true;
  }
}

/// value[key] as T; Error(bad_input) names where, key, what was found and the type that is wanted.
template <typename T>
T json_get(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) fail(Exit::bad_input, "{}: expected an object, found {}", where, object.type_name());
  auto it = object.find(key);
  if (it == object.end()) fail(Exit::bad_input, "{}: key \"{}\" is missing", where, key);
  try {
    if (json_holds<T>(*it)) return it->template get<T>();
  } catch (const nlohmann::json::exception&) {
    // Falls through to the message.
  }
  fail(Exit::bad_input, "{}: key \"{}\" has the wrong type: {}", where, key,
       it->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80));
}

/// As json_get, with a default when the key is missing or null.
template <typename T>
T json_get(const Json& object, const std::string& key, const std::string& where, T otherwise) {
  if (!object.is_object()) fail(Exit::bad_input, "{}: expected an object, found {}", where, object.type_name());
  auto it = object.find(key);
  if (it == object.end() || it->is_null()) return otherwise;
  return json_get<T>(object, key, where);
}

}  // namespace retort
