#include "core/schema.h"

#include <algorithm>
#include <cmath>

namespace retort {
namespace {

// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string plain_letters(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return c == '-' ? '_' : std::tolower(c); });
  return word;
}

template <typename T>
void check_bounds(const Yaml& node, const Check& check, T value) {
  const double v = static_cast<double>(value);
  if (v > check.minimum && v < check.maximum) return;
  if ((v == check.minimum && !check.minimum_open) || (v == check.maximum && !check.maximum_open)) return;
  std::string allowed;
  if (std::isfinite(check.minimum))
    allowed += fmt::format("{} {}", check.minimum_open ? "above" : "at least", check.minimum);
  if (std::isfinite(check.maximum)) {
    if (!allowed.empty()) allowed += " and ";
    allowed += fmt::format("{} {}", check.maximum_open ? "below" : "at most", check.maximum);
  }
  node.refuse(fmt::format("found {}; allowed: {}", node.shown(), allowed));
}

template <typename T>
Json number_schema(const char* type, const Check& check) {
  Json schema = {{"type", type}};
  auto bound = [&](double value, bool open, const char* closed_name, const char* open_name) {
    if (std::isfinite(value)) schema[open ? open_name : closed_name] = static_cast<T>(value);
  };
  bound(check.minimum, check.minimum_open, "minimum", "exclusiveMinimum");
  bound(check.maximum, check.maximum_open, "maximum", "exclusiveMaximum");
  return schema;
}

std::string type_text(const Json& schema);

// One of `types`, with the bounds of `schema`.
std::string plain_type_text(const std::string& type, const Json& schema) {
  if (type == "boolean") return "true or false";
  if (type == "string") return "text";
  if (type == "null") return "null";
  if (type == "array") return schema.contains("items") ? "list of " + type_text(schema["items"]) : "list";
  if (type == "object") {
    if (schema.contains("properties")) return "section";
    if (schema.contains("additionalProperties") && schema["additionalProperties"].is_object()) {
      return "map of " + type_text(schema["additionalProperties"]);
    }
    return "map";
  }
  std::string text = type == "integer" ? "whole number" : "number";
  for (const auto& [name, sign] : {std::pair("minimum", "≥"), std::pair("exclusiveMinimum", ">"),
                                   std::pair("maximum", "≤"), std::pair("exclusiveMaximum", "<")}) {
    if (schema.contains(name)) text += fmt::format(" {} {}", sign, schema[name].dump());
  }
  return text;
}

std::string type_text(const Json& schema) {
  std::vector<std::string> parts;
  if (schema.contains("enum")) {
    for (const Json& value : schema["enum"])
      parts.push_back(value.is_string() ? value.get<std::string>() : value.dump());
  } else if (schema.contains("anyOf") || schema.contains("oneOf")) {
    for (const Json& one : schema[schema.contains("anyOf") ? "anyOf" : "oneOf"]) {
      const std::string text = type_text(one);
      if (std::find(parts.begin(), parts.end(), text) == parts.end()) parts.push_back(text);
    }
  } else if (schema.contains("type")) {
    const Json& type = schema["type"];
    for (const Json& one : type.is_array() ? type : Json::array({type})) {
      parts.push_back(plain_type_text(one.get<std::string>(), schema));
    }
  } else {
    parts.push_back("anything");
  }
  return fmt::format("{}", fmt::join(parts, schema.contains("enum") ? ", " : " or "));
}

// The structs inside a value's schema, with what to add to the key path to reach them.
void find_sections(const Json& schema, const std::string& path,
                   std::vector<std::pair<std::string, const Json*>>& found) {
  if (schema.contains("properties")) found.emplace_back(path, &schema);
  if (schema.contains("items")) find_sections(schema["items"], path + "[]", found);
  if (schema.contains("additionalProperties") && schema["additionalProperties"].is_object()) {
    find_sections(schema["additionalProperties"], path + ".*", found);
  }
  for (const char* name : {"anyOf", "oneOf"}) {
    if (!schema.contains(name)) continue;
    for (const Json& one : schema[name]) find_sections(one, path, found);
  }
}

std::string table_cell(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("|\n", at)) != text.npos; at += 2) {
    text.replace(at, 1, text[at] == '|' ? "\\|" : "  ");
  }
  return text;
}

void write_section(const Json& schema, const std::string& path, std::string& out) {
  if (!out.empty()) out += '\n';
  out += fmt::format("## {}\n\n", path.empty() ? schema.value("title", "") : "`" + path + "`");
  if (schema.contains("description")) out += schema["description"].get<std::string>() + "\n\n";
  out += "| key | type | default | meaning |\n|---|---|---|---|\n";
  std::vector<std::pair<std::string, const Json*>> sections;
  for (const auto& [key, field] : schema["properties"].items()) {
    std::string standard = "required";
    if (field.contains("default")) standard = "`" + field["default"].dump() + "`";
    if (field.contains("properties") && !field.contains("default")) standard = "";
    out += fmt::format("| `{}` | {} | {} | {} |\n", key, table_cell(type_text(field)), table_cell(standard),
                       table_cell(field.value("description", "")));
    find_sections(field, path.empty() ? key : path + "." + key, sections);
  }
  for (const auto& [inner_path, inner] : sections) write_section(*inner, inner_path, out);
}

}  // namespace

std::string did_you_mean(const std::string& word, const std::vector<std::string>& allowed) {
  const std::string wanted = plain_letters(word.substr(0, 100));
  std::string best;
  size_t best_distance = std::max<size_t>(1, std::min<size_t>(3, wanted.size() / 3)) + 1;
  for (const std::string& candidate : allowed) {
    const size_t distance = edit_distance(wanted, plain_letters(candidate));
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string not_among(const std::string& found, const std::vector<std::string>& allowed) {
  std::string text = fmt::format("found \"{}\"; allowed: {}", found, fmt::join(allowed, ", "));
  if (const std::string near = did_you_mean(found, allowed); !near.empty())
    text += fmt::format("; did you mean {}?", near);
  return text;
}

std::string schema_markdown(const Json& schema) {
  std::string out;
  write_section(schema, "", out);
  return out;
}

Json nullable_schema(Json schema) {
  if (schema.empty()) return schema;
  if (!schema.contains("type") || !schema["type"].is_string()) {
    return {{"anyOf", Json::array({std::move(schema), {{"type", "null"}}})}};
  }
  schema["type"] = Json::array({schema["type"], "null"});
  if (schema.contains("enum")) schema["enum"].push_back(nullptr);
  return schema;
}

void SchemaBase::add(Field field) {
  for (const Field& other : fields_) {
    if (other.key == field.key) fail(Exit::internal, "schema {}: the field {} is declared twice", name_, field.key);
  }
  fields_.push_back(std::move(field));
}

std::string SchemaBase::unknown_key(const std::string& key) const {
  if (auto it = renamed_.find(key); it != renamed_.end()) {
    if (it->second.find(' ') != std::string::npos) return fmt::format("unknown key \"{}\": {}", key, it->second);
    return fmt::format("unknown key \"{}\"; here it is called {}", key, it->second);
  }
  std::vector<std::string> allowed;
  for (const Field& field : fields_) allowed.push_back(field.key);
  return "unknown key: " + not_among(key, allowed);
}

void SchemaBase::parse_into(const Yaml& node, void* object) const {
  std::vector<std::string> problems;
  Exit exit = Exit::usage;
  auto attempt = [&](auto&& what) {
    try {
      what();
    } catch (const Error& error) {
      if (problems.empty()) exit = error.exit();
      problems.push_back(error.what());
    }
  };
  std::vector<std::pair<std::string, Yaml>> entries;
  if (!node.is_null()) entries = node.entries();
  for (const auto& [key, value] : entries) {
    auto field = std::find_if(fields_.begin(), fields_.end(), [&](const Field& f) { return f.key == key; });
    attempt([&, &key = key, &value = value] {
      if (field == fields_.end()) value.refuse(unknown_key(key));
      field->type->parse(value, field->check, static_cast<char*>(object) + field->offset);
    });
  }
  for (const Field& field : fields_) {
    attempt([&] {
      if (field.check.required && !node.has(field.key)) {
        node.refuse(fmt::format("the key \"{}\" is missing ({})", field.key, field.doc));
      }
    });
  }
  // Rules may rely on every field being sound.
  for (size_t i = 0; i < rules_.size() && problems.empty(); ++i) attempt([&] { rules_[i](object, node); });
  if (!problems.empty()) fail(exit, "{}", fmt::join(problems, "\n"));
}

Json SchemaBase::to_json(const void* object) const {
  Json result = Json::object();
  for (const Field& field : fields_) {
    result[field.key] = field.type->to_json(static_cast<const char*>(object) + field.offset);
  }
  return result;
}

Json SchemaBase::json_schema(const void* object) const {
  const char* standard = static_cast<const char*>(object ? object : defaults());
  Json properties = Json::object(), required = Json::array();
  for (const Field& field : fields_) {
    Json schema = field.type->json_schema(field.check, standard + field.offset);
    schema["description"] = field.doc;
    if (field.check.required) {
      required.push_back(field.key);
    } else if (!schema.contains("properties") || schema["type"].is_array()) {
      schema["default"] = field.type->to_json(standard + field.offset);  // a section's defaults stand at its own keys
    }
    properties[field.key] = std::move(schema);
  }
  Json schema = {{"title", name_}, {"description", doc_}, {"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  schema["additionalProperties"] = false;
  return schema;
}

template <typename T>
static const T& as(const void* value) {
  return *static_cast<const T*>(value);
}
template <typename T>
static T& as(void* value) {
  return *static_cast<T*>(value);
}

const ValueType bool_type = {[](const Yaml& node, const Check&, void* value) { as<bool>(value) = node.as_bool(); },
                             [](const void* value) -> Json { return as<bool>(value); },
                             [](const Check&, const void*) -> Json {
                               return {{"type", "boolean"}};
                             }};

const ValueType int_type = {
    [](const Yaml& node, const Check& check, void* value) {
      as<int64_t>(value) = node.as_int();
      check_bounds(node, check, as<int64_t>(value));
    },
    [](const void* value) -> Json { return as<int64_t>(value); },
    [](const Check& check, const void*) -> Json { return number_schema<int64_t>("integer", check); }};

const ValueType double_type = {
    [](const Yaml& node, const Check& check, void* value) {
      as<double>(value) = node.as_double();
      check_bounds(node, check, as<double>(value));
    },
    [](const void* value) -> Json { return as<double>(value); },
    [](const Check& check, const void*) -> Json { return number_schema<double>("number", check); }};

const ValueType string_type = {
    [](const Yaml& node, const Check& check, void* value) {
      as<std::string>(value) = node.as_string();
      const auto& allowed = check.one_of;
      if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), as<std::string>(value)) == allowed.end()) {
        node.refuse(not_among(as<std::string>(value), allowed));
      }
    },
    [](const void* value) -> Json { return as<std::string>(value); },
    [](const Check& check, const void*) -> Json {
      Json schema = {{"type", "string"}};
      if (!check.one_of.empty()) schema["enum"] = check.one_of;
      return schema;
    }};

const ValueType path_type = {
    [](const Yaml& node, const Check&, void* value) { as<std::filesystem::path>(value) = node.as_string(); },
    [](const void* value) -> Json { return as<std::filesystem::path>(value).string(); },
    [](const Check&, const void*) -> Json {
      return {{"type", "string"}};
    }};

const ValueType json_type = {[](const Yaml& node, const Check&, void* value) { as<Json>(value) = node.as_json(); },
                             [](const void* value) -> Json { return as<Json>(value); },
                             [](const Check&, const void*) -> Json { return Json::object(); }};

const ValueType yaml_type = {[](const Yaml& node, const Check&, void* value) { as<std::optional<Yaml>>(value) = node; },
                             [](const void* value) -> Json {
                               const auto& node = as<std::optional<Yaml>>(value);
                               return node ? node->as_json() : Json(nullptr);
                             },
                             [](const Check&, const void*) -> Json { return Json::object(); }};

}  // namespace retort
