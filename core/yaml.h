// A strict reader for YAML: every node knows its file, line and key path; every error says found, allowed, did you mean.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace YAML {
class Node;
}

namespace retort {

/// A node of a recipe. Cheap to copy.
class Yaml {
 public:
  /// Reads a file / a text; Error(usage) with file:line:column on a syntax error or a duplicate key.
  /// `overrides` are key=value pairs ("train.learning_rate=1e-4"; values are YAML; "~key" deletes) applied before parsing;
  /// nodes that come from them say "command line: key=value" as their place. ${a.b} in a scalar takes the value at that path,
  /// ${env:NAME} an environment variable.
  static Yaml load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
  static Yaml parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides = {});

  bool is_null() const;
  bool is_scalar() const;
  bool is_list() const;
  bool is_map() const;
  /// The value as YAML flow text, shortened, for messages.
  std::string shown() const;
  /// "configs/quickstart.yaml:12 adapter.r"
  std::string where() const;
  /// Key path alone: "adapter.r"
  const std::string& key() const;
  /// The folder of the file, for relative paths.
  std::filesystem::path folder() const;

  std::vector<Yaml> items() const;                           ///< of a list
  std::vector<std::pair<std::string, Yaml>> entries() const;  ///< of a map, in order
  bool has(const std::string& key) const;
  Yaml operator[](const std::string& key) const;  ///< of a map; Error(usage) when missing

  bool as_bool() const;  ///< true/false only
  int64_t as_int() const;
  double as_double() const;  ///< accepts 5e-4, unlike YAML 1.1 rules that want a dot
  std::string as_string() const;
  Json as_json() const;  ///< anything, untyped

  /// Throws Error(usage): where, message.
  [[noreturn]] void refuse(const std::string& message) const;
  /// The whole tree as YAML text (the resolved recipe).
  std::string dump() const;

 private:
  struct State;
  explicit Yaml(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace retort
