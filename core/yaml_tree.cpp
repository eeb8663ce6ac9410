#include "core/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <sstream>

#include "core/error.h"

namespace retort {
namespace {

using Kind = YamlNode::Kind;
constexpr size_t kMaxDepth = 64;       // below yaml-cpp's own limit, and what recursion over the tree can bear
constexpr size_t kMaxNodes = 20'000;   // aliases and ${…} copy: without a limit ten lines make a billion nodes
constexpr size_t kMaxText = 64 << 20;  // the same for text joined by ${…}

struct Size {
  size_t nodes = 0, depth = 0;
};

Size size_of(const YamlNode& node) {
  Size size;
  auto add = [&](const YamlNode& child) {
    const Size inner = size_of(child);
    size.nodes += inner.nodes;
    size.depth = std::max(size.depth, inner.depth);
  };
  for (const auto& item : node.items) add(item);
  for (const auto& [key, value] : node.entries) add(value);
  return {size.nodes + 1, size.depth + 1};
}

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::string name) : name_(std::move(name)) {}

  YamlNode root;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (started_) refuse(mark, "a second document begins here; a file may hold only one");
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { put(mark, anchor, YamlNode{}); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node;
    node.kind = Kind::scalar;
    node.text = value;
    // yaml-cpp's tags: "?" a plain scalar, "!" a quoted one.
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!node.quoted) check_tag(mark, tag);
    put(mark, anchor, std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto it = anchors_.find(anchor);
    if (it == anchors_.end()) refuse(mark, "the alias stands inside the node it names");
    const Size size = size_of(it->second);
    if (open_.size() + size.depth > kMaxDepth) refuse(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    nodes_ += size.nodes;
    put(mark, 0, it->second);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Kind::list);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    start(mark, tag, anchor, Kind::map);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor;
    YAML::Mark mark;
    bool has_key = false;
    std::string key;
    int key_line = 0;
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& message) const {
    fail(Exit::usage, "{}:{}:{}: {}", name_, mark.line + 1, mark.column + 1, message);
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?" || tag.starts_with("tag:yaml.org,2002:")) return;
    refuse(mark, fmt::format("the tag {} means nothing here; remove it", tag));
  }

  void start(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Kind kind) {
    if (tag != "!") check_tag(mark, tag);
    if (open_.size() >= kMaxDepth) refuse(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    Open open{{}, anchor, mark, false, {}, 0};
    open.node.kind = kind;
    open_.push_back(std::move(open));
  }

  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    put(done.mark, done.anchor, std::move(done.node));
  }

  void put(const YAML::Mark& mark, YAML::anchor_t anchor, YamlNode node) {
    if (++nodes_ > kMaxNodes) refuse(mark, fmt::format("more than {} values", kMaxNodes));
    node.line = mark.line + 1;
    if (anchor) anchors_[anchor] = node;
    if (open_.empty()) {
      root = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Kind::list) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      if (node.kind == Kind::list || node.kind == Kind::map) {
        refuse(mark, "a list or a map cannot be a key; text with [ or { must be quoted");
      }
      parent.has_key = true;
      parent.key = node.kind == Kind::null ? "null" : std::move(node.text);
      if (parent.node.find(parent.key)) refuse(mark, fmt::format("the key \"{}\" stands twice in one map", parent.key));
      parent.key_line = node.line;
    } else {
      node.line = parent.key_line;
      parent.has_key = false;
      parent.node.entries.emplace_back(std::move(parent.key), std::move(node));
    }
  }

  std::string name_;
  bool started_ = false;
  size_t nodes_ = 0;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, YamlNode> anchors_;
};

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t dot = path.find('.', begin);
    parts.emplace_back(path.substr(begin, dot - begin));
    if (dot == path.npos) return parts;
    begin = dot + 1;
  }
}

// The item or entry called `part`, or nullptr.
YamlNode* child(YamlNode& node, const std::string& part) {
  if (node.kind == Kind::map) return node.find(part);
  if (node.kind != Kind::list) return nullptr;
  size_t index = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  if (error != std::errc() || end != part.data() + part.size() || index >= node.items.size()) return nullptr;
  return &node.items[index];
}

void set_origin(YamlNode& node, const std::string& origin) {
  node.origin = origin;
  for (auto& item : node.items) set_origin(item, origin);
  for (auto& [key, value] : node.entries) set_origin(value, origin);
}

void set_paths(YamlNode& node, const std::string& path) {
  node.path = path;
  for (size_t i = 0; i < node.items.size(); ++i) set_paths(node.items[i], fmt::format("{}[{}]", path, i));
  for (auto& [key, value] : node.entries) set_paths(value, path.empty() ? key : path + "." + key);
}

// Replaces references; a value that is being replaced further up is a cycle.
class Resolver {
 public:
  Resolver(YamlNode& root, const std::string& name) : root_(root), name_(name) {}

  void run() {
    nodes_ = size_of(root_).nodes;
    resolve(root_, 0);
  }

 private:
  [[noreturn]] void refuse(const YamlNode& node, const std::string& message) const {
    fail(Exit::usage, "{}: {}", place_of(node, name_), message);
  }

  void resolve(YamlNode& node, size_t depth) {
    if (node.resolved) return;
    if (depth > kMaxDepth) refuse(node, fmt::format("nested deeper than {} levels", kMaxDepth));
    for (auto& item : node.items) resolve(item, depth + 1);
    for (auto& [key, value] : node.entries) resolve(value, depth + 1);
    if (std::find(active_.begin(), active_.end(), &node) != active_.end()) {
      refuse(node, fmt::format("\"{}\" refers to itself", node.text));
    }
    active_.push_back(&node);
    if (node.kind == Kind::scalar) replace(node, depth);
    active_.pop_back();
    node.resolved = true;
  }

  void replace(YamlNode& node, size_t depth) {
    const std::string text = node.text;
    std::string result, kept;
    bool from_environment = false;
    const auto add = [&](const std::string& part) {
      result += part;
      kept += escaped_references(part);
    };
    for (size_t at = 0; at < text.size();) {
      const size_t dollar = text.find("${", at);
      add(text.substr(at, dollar - at));
      if (dollar == text.npos) break;
      if (dollar > at && text[dollar - 1] == '$') {  // "$${": the first dollar is already in the result
        result += '{';
        kept += "${";
        at = dollar + 2;
        continue;
      }
      const size_t close = text.find('}', dollar);
      if (close == text.npos) refuse(node, fmt::format("\"{}\": ${{ without }}; write $${{ for the characters", text));
      const std::string reference = text.substr(dollar + 2, close - dollar - 2);
      at = close + 1;
      if (reference.starts_with("env:")) {
        const char* value = std::getenv(reference.c_str() + 4);
        if (!value) refuse(node, fmt::format("the environment variable {} is not set", reference.substr(4)));
        result += value;
        kept += "${" + reference + "}";
        from_environment = true;
        if (dollar == 0 && at == text.size()) node.quoted = false;  // a number in a variable is a number
        continue;
      }
      YamlNode& target = find(node, reference, depth);
      if (dollar == 0 && at == text.size()) return become(node, target);
      if (target.kind != Kind::scalar) {
        refuse(node, fmt::format("${{{}}} is a list, a map or null and cannot be part of a text", reference));
      }
      result += target.text;
      kept += target.kept.empty() ? escaped_references(target.text) : target.kept;
      from_environment |= !target.kept.empty();
      if ((bytes_ += target.text.size()) > kMaxText) refuse(node, "the text grows without end");
    }
    node.text = std::move(result);
    if (from_environment) node.kept = std::move(kept);
  }

  YamlNode& find(const YamlNode& from, const std::string& reference, size_t depth) {
    YamlNode* target = &root_;
    for (const std::string& part : split_path(reference)) {
      target = child(*target, part);
      if (!target) refuse(from, fmt::format("${{{}}}: there is no such key (\"{}\")", reference, part));
    }
    resolve(*target, depth + 1);
    return *target;
  }

  void become(YamlNode& node, const YamlNode& target) {
    nodes_ += size_of(target).nodes;
    if (nodes_ > kMaxNodes) refuse(node, fmt::format("more than {} values", kMaxNodes));
    YamlNode copy = target;
    copy.line = node.line;
    copy.origin = node.origin;
    node = std::move(copy);
  }

  YamlNode& root_;
  const std::string& name_;
  std::vector<const YamlNode*> active_;
  size_t nodes_ = 0, bytes_ = 0;
};

}  // namespace

std::string escaped_references(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "${") == 0) result += '$';
    result += text[i];
  }
  return result;
}

YamlNode* YamlNode::find(std::string_view key) {
  for (auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::string place_of(const YamlNode& node, const std::string& name) {
  std::string place = node.origin;
  if (place.empty()) place = node.line > 0 ? fmt::format("{}:{}", name, node.line) : name;
  return node.path.empty() ? place : place + " " + node.path;
}

YamlNode parse_yaml_tree(const std::string& text, const std::string& name) {
  std::istringstream stream(text);
  Builder builder(name);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    fail(Exit::usage, "{}:{}:{}: not valid YAML: {}", name, error.mark.line + 1, error.mark.column + 1, error.msg);
  }
  return std::move(builder.root);
}

void apply_override(YamlNode& root, const std::string& text) {
  const std::string origin = "command line: " + text;
  const bool remove = text.starts_with("~");
  const size_t equals = text.find('=');
  if (!remove && (equals == 0 || equals == text.npos)) {
    fail(Exit::usage, "{}: expected key=value (or ~key to delete), for instance train.max_steps=10", origin);
  }
  const std::vector<std::string> parts = split_path(remove ? text.substr(1) : text.substr(0, equals));
  YamlNode* node = &root;
  for (size_t i = 0; i + 1 < parts.size() || (!remove && i < parts.size()); ++i) {
    if (node->kind == Kind::null && !remove) node->kind = Kind::map;
    YamlNode* next = child(*node, parts[i]);
    if (!next) {
      if (remove) fail(Exit::usage, "{}: there is no such key (\"{}\")", origin, parts[i]);
      if (node->kind == Kind::list) {
        fail(Exit::usage, "{}: the list has {} items; \"{}\" is none of them", origin, node->items.size(), parts[i]);
      }
      if (node->kind == Kind::scalar || parts[i].empty()) {
        fail(Exit::usage, "{}: \"{}\" cannot be set here", origin, parts[i]);
      }
      node->entries.emplace_back(parts[i], YamlNode{});
      next = &node->entries.back().second;
      next->origin = origin;
    }
    node = next;
  }
  if (!remove) {
    *node = parse_yaml_tree(text.substr(equals + 1), "command line");
    set_origin(*node, origin);
    return;
  }
  YamlNode* gone = child(*node, parts.back());
  if (!gone) fail(Exit::usage, "{}: there is no such key (\"{}\")", origin, parts.back());
  std::erase_if(node->entries, [&](const auto& entry) { return &entry.second == gone; });
  if (node->kind == Kind::list) node->items.erase(node->items.begin() + (gone - node->items.data()));
}

void resolve_yaml_tree(YamlNode& root, const std::string& name) {
  set_paths(root, "");
  Resolver(root, name).run();
  set_paths(root, "");
}

}  // namespace retort
