// A strict reader for YAML: every node knows its file, line and key path; every error says found, allowed, did you
// mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace retort {

struct YamlNode;

/// A node of a recipe. Cheap to copy.
class Yaml {
 public:
  /// Reads a file / a text; Error(usage) with file:line:column on a syntax error, a duplicate key, a tag, more than one
  /// document, nesting deeper than 64 levels or (by aliases) more than 20,000 nodes.
  /// `overrides` are key=value pairs ("train.learning_rate=1e-4"; values are YAML; "data.train.0.path=x" reaches into a
  /// list;
  /// "~key" deletes) applied before interpolation; nodes that come from them say "command line: key=value" as their
  /// place.
  /// ${a.b} in a scalar takes the value at that path (the whole subtree when the scalar is nothing else), ${env:NAME}
  /// an environment variable; $${ stands for ${ itself.
  static Yaml load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
  static Yaml parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides = {});
  /// The value as if it stood in a file called `name`.
  static Yaml from_json(const Json& value, const std::string& name);

  bool is_null() const;
  bool is_scalar() const;  ///< not null
  bool is_list() const;
  bool is_map() const;
  /// The value as YAML flow text, shortened, for messages.
  std::string shown() const;
  /// "configs/quickstart.yaml:12 adapter.r"
  std::string where() const;
  /// Key path alone: "adapter.r"
  const std::string& key() const;
  /// The folder of the file, for relative paths; "." for text.
  std::filesystem::path folder() const;

  std::vector<Yaml> items() const;                            ///< of a list
  std::vector<std::pair<std::string, Yaml>> entries() const;  ///< of a map, in order
  bool has(const std::string& key) const;
  Yaml operator[](const std::string& key) const;  ///< of a map; Error(usage) when missing

  bool as_bool() const;           ///< true/false only
  int64_t as_int() const;         ///< decimal
  double as_double() const;       ///< finite; accepts 5e-4, unlike YAML 1.1 rules that want a dot
  std::string as_string() const;  ///< any scalar's text
  Json as_json() const;           ///< anything, untyped

  /// Throws Error(usage): where, message.
  [[noreturn]] void refuse(const std::string& message) const;
  /// The whole tree as YAML text (the resolved recipe).
  std::string dump() const;

 private:
  struct Document;
  Yaml(std::shared_ptr<const Document> document, const YamlNode* node) : document_(std::move(document)), node_(node) {}
  std::shared_ptr<const Document> document_;
  const YamlNode* node_;
};

}  // namespace retort
