#include "core/yaml.h"

#include <yaml-cpp/emitter.h>
#include <yaml-cpp/emittermanip.h>
#include <yaml-cpp/null.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "core/files.h"
#include "core/yaml_tree.h"

namespace retort {
namespace {

using Kind = YamlNode::Kind;

template <typename T>
std::optional<T> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  // from_chars also reads "inf" and "nan".
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

Json untyped(const YamlNode& node) {
  switch (node.kind) {
    case Kind::null:
      return nullptr;
    case Kind::list: {
      Json list = Json::array();
      for (const auto& item : node.items) list.push_back(untyped(item));
      return list;
    }
    case Kind::map: {
      Json map = Json::object();
      for (const auto& [key, value] : node.entries) map[key] = untyped(value);
      return map;
    }
    case Kind::scalar:
      break;
  }
  if (!node.quoted) {
    if (node.text == "true") return true;
    if (node.text == "false") return false;
    if (auto value = number<int64_t>(node.text)) return *value;
    if (auto value = number<double>(node.text)) return *value;
  }
  return node.text;
}

YamlNode tree_of(const Json& value) {
  YamlNode node;
  if (value.is_null()) return node;
  if (value.is_array()) {
    node.kind = Kind::list;
    for (const auto& item : value) node.items.push_back(tree_of(item));
  } else if (value.is_object()) {
    node.kind = Kind::map;
    for (const auto& [key, item] : value.items()) node.entries.emplace_back(key, tree_of(item));
  } else {
    node.kind = Kind::scalar;
    node.quoted = value.is_string();
    node.text = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return node;
}

// Whether a plain scalar of this text would be read as something else than text by Retort or by a YAML 1.1 reader.
bool needs_quotes(const YamlNode& node) {
  static const std::vector<std::string> words = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ""};
  std::string lower = node.text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::find(words.begin(), words.end(), lower) != words.end() || number<double>(node.text) ||
         node.text.find_first_of("0123456789.+-") == 0;
}

// A literal block keeps the text only when it ends with one newline, starts with no space and holds no control
// character.
bool fits_literal_block(const std::string& text) {
  if (text.size() < 2 || !text.ends_with('\n') || text.ends_with("\n\n") || text[0] == ' ' || text[0] == '\n')
    return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c == '\n' || (c >= 0x20 && c != 0x7f); });
}

void emit(YAML::Emitter& out, const YamlNode& node, bool keep_environment) {
  switch (node.kind) {
    case Kind::null:
      out << YAML::Null;
      return;
    case Kind::list:
      out << YAML::BeginSeq;
      for (const auto& item : node.items) emit(out, item, keep_environment);
      out << YAML::EndSeq;
      return;
    case Kind::map:
      out << YAML::BeginMap;
      for (const auto& [key, value] : node.entries) {
        out << YAML::Key << key << YAML::Value;
        emit(out, value, keep_environment);
      }
      out << YAML::EndMap;
      return;
    case Kind::scalar:
      break;
  }
  if (keep_environment && !node.kept.empty()) {
    out << node.kept;
    return;
  }
  if (fits_literal_block(node.text)) {
    out << YAML::Literal;
  } else if (node.quoted && needs_quotes(node)) {
    out << YAML::DoubleQuoted;
  }
  out << escaped_references(node.text);
}

std::string dumped(const YamlNode& root, bool keep_environment) {
  YAML::Emitter out;
  emit(out, root, keep_environment);
  return std::string(out.c_str(), out.size()) + "\n";
}

std::string kind_of(const YamlNode& node) {
  if (node.kind == Kind::list) return "a list";
  if (node.kind == Kind::map) return "a map";
  return node.kind == Kind::null ? "nothing" : "a value";
}

}  // namespace

struct Yaml::Document {
  std::string name;
  std::filesystem::path folder;
  YamlNode root;
};

Yaml Yaml::parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  auto document = std::make_shared<Document>();
  document->name = name;
  document->folder = ".";
  document->root = parse_yaml_tree(text, name);
  for (const std::string& override : overrides) apply_override(document->root, override);
  resolve_yaml_tree(document->root, name);
  return Yaml(document, &document->root);
}

Yaml Yaml::load(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const Yaml yaml = parse(read_text(path, 16 << 20), path.string(), overrides);
  auto document = std::make_shared<Document>(*yaml.document_);
  document->folder = path.has_parent_path() ? path.parent_path() : ".";
  return Yaml(document, &document->root);
}

Yaml Yaml::from_json(const Json& value, const std::string& name) {
  auto document = std::make_shared<Document>();
  document->name = name;
  document->folder = ".";
  document->root = tree_of(value);
  return Yaml(document, &document->root);
}

bool Yaml::is_null() const { return node_->kind == Kind::null; }
bool Yaml::is_scalar() const { return node_->kind == Kind::scalar; }
bool Yaml::is_list() const { return node_->kind == Kind::list; }
bool Yaml::is_map() const { return node_->kind == Kind::map; }

std::string Yaml::shown() const {
  std::string text = as_json().dump(-1, ' ', false, Json::error_handler_t::replace);
  if (node_->kind == Kind::scalar && !node_->quoted) text = node_->text;
  if (!node_->kept.empty()) text = node_->kept;  // messages are logged, and what came from there may be a secret
  if (text.size() <= 80) return text;
  size_t end = 76;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a UTF-8 sequence
  return text.substr(0, end) + " …";
}

std::string Yaml::where() const { return place_of(*node_, document_->name); }
const std::string& Yaml::key() const { return node_->path; }
std::filesystem::path Yaml::folder() const { return document_->folder; }

void Yaml::refuse(const std::string& message) const { fail(Exit::usage, "{}: {}", where(), message); }

std::vector<Yaml> Yaml::items() const {
  if (!is_list()) refuse(fmt::format("expected a list, found {} ({})", kind_of(*node_), shown()));
  std::vector<Yaml> result;
  for (const auto& item : node_->items) result.push_back(Yaml(document_, &item));
  return result;
}

std::vector<std::pair<std::string, Yaml>> Yaml::entries() const {
  if (!is_map()) refuse(fmt::format("expected a map (key: value), found {} ({})", kind_of(*node_), shown()));
  std::vector<std::pair<std::string, Yaml>> result;
  for (const auto& [key, value] : node_->entries) result.emplace_back(key, Yaml(document_, &value));
  return result;
}

bool Yaml::has(const std::string& key) const {
  return is_map() && std::any_of(node_->entries.begin(), node_->entries.end(), [&](auto& e) { return e.first == key; });
}

Yaml Yaml::operator[](const std::string& key) const {
  for (const auto& [name, value] : entries()) {
    if (name == key) return value;
  }
  refuse(fmt::format("the key \"{}\" is missing", key));
}

bool Yaml::as_bool() const {
  if (is_scalar() && !node_->quoted) {
    if (node_->text == "true") return true;
    if (node_->text == "false") return false;
  }
  refuse(fmt::format("expected true or false, found {}", shown()));
}

int64_t Yaml::as_int() const {
  if (is_scalar() && !node_->quoted) {
    if (auto value = number<int64_t>(node_->text)) return *value;
  }
  refuse(fmt::format("expected a whole number, found {}", shown()));
}

double Yaml::as_double() const {
  if (is_scalar() && !node_->quoted) {
    if (auto value = number<double>(node_->text)) return *value;
  }
  refuse(fmt::format("expected a number, found {}", shown()));
}

std::string Yaml::as_string() const {
  if (!is_scalar()) refuse(fmt::format("expected text, found {} ({})", kind_of(*node_), shown()));
  return node_->text;
}

Json Yaml::as_json() const { return untyped(*node_); }

std::string Yaml::dump() const { return dumped(*node_, false); }

std::string stored_yaml(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  YamlNode root = parse_yaml_tree(text, name);
  for (const std::string& override : overrides) apply_override(root, override);
  resolve_yaml_tree(root, name);
  return dumped(root, true);
}

}  // namespace retort
