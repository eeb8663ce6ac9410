// The tree behind core/yaml.h: built from yaml-cpp's events, since its own Node keeps no places for keys and merges
// duplicate ones without a word.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retort {

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  bool quoted = false;    ///< a scalar that is a string whatever it looks like
  bool resolved = false;  ///< its ${…} are replaced
  int line = 0;           ///< from 1; of the key where there is one
  std::string text;       ///< of a scalar
  std::string kept;       ///< the same with ${env:…} as it stood, and ${ escaped; empty: nothing came from there
  std::string origin;     ///< "command line: a.b=c"; empty: the file
  std::string path;       ///< "data.train[0].path"
  std::vector<YamlNode> items;
  std::vector<std::pair<std::string, YamlNode>> entries;

  YamlNode* find(std::string_view key);
};

/// Parses one document. Error(usage) names `name`, line and column.
YamlNode parse_yaml_tree(const std::string& text, const std::string& name);

/// Applies one "a.b=value", "a.0.b=value" or "~a.b" to the tree.
void apply_override(YamlNode& root, const std::string& text);

/// Replaces every ${…}, then sets every node's path.
void resolve_yaml_tree(YamlNode& root, const std::string& name);

/// ${ in resolved text is text: it must not be taken for a reference when the file is read again.
std::string escaped_references(const std::string& text);

/// The text as YAML with overrides and references applied, but for ${env:NAME}, which stands as it was written: what is
/// stored must not hold a secret. Errors as Yaml::parse.
std::string stored_yaml(const std::string& text, const std::string& name,
                        const std::vector<std::string>& overrides = {});

/// "file:12 a.b" or "command line: a.b=c".
std::string place_of(const YamlNode& node, const std::string& name);

}  // namespace retort
