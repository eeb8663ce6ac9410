// JSON through nlohmann-json, with errors that say where.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"

namespace retort {

/// Objects keep the order in which their keys were written.
using Json = nlohmann::ordered_json;

/// Parses; Error(bad_input) names `where`, the line and the column, and what was found. Depth and size are bounded.
Json parse_json(std::string_view text, const std::string& where);
Json read_json(const std::filesystem::path& path);
/// Writes with two-space indentation and a closing newline, atomically.
void write_json(const std::filesystem::path& path, const Json& value);

/// value[key] as T; Error(bad_input) names where, key, what was found and the type that is wanted.
template <typename T>
T json_get(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) fail(Exit::bad_input, "{}: expected an object, found {}", where, object.type_name());
  auto it = object.find(key);
  if (it == object.end()) fail(Exit::bad_input, "{}: key \"{}\" is missing", where, key);
  try {
    return it->template get<T>();
  } catch (const nlohmann::json::exception&) {
    fail(Exit::bad_input, "{}: key \"{}\" has the wrong type: {}", where, key, it->dump().substr(0, 80));
  }
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
