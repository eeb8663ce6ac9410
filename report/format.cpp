#include "report/format.h"

#include <cmath>

namespace retort {
namespace {

const std::string kMissing = "–";
const std::string kNarrowSpace = "\u202F";  // between a figure and its unit

bool is_finite_number(const Json& value) { return value.is_number() && std::isfinite(value.get<double>()); }

}  // namespace

const Json& value_at(const Json& object, const std::string& pointer) {
  static const Json null;
  Json::json_pointer path(pointer);
  return object.contains(path) ? object[path] : null;
}

std::string text_at(const Json& object, const std::string& pointer) {
  const Json& value = value_at(object, pointer);
  return value.is_null() ? "" : show_any(value);
}

const Json& list_at(const Json& object, const std::string& pointer) {
  static const Json empty = Json::array();
  const Json& value = value_at(object, pointer);
  return value.is_array() ? value : empty;
}

std::string show_count(const Json& value) {
  if (!is_finite_number(value)) return kMissing;
  std::string digits = fmt::format("{:.0f}", std::fabs(value.get<double>()));
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, 1, ',');
  return fmt::format("{}{}", value.get<double>() < 0 ? "−" : "", digits);
}

std::string show_number(const Json& value, int digits) {
  if (!is_finite_number(value)) return kMissing;
  double number = value.get<double>();
  if (std::fabs(number) >= std::pow(10, digits)) return show_count(value);
  std::string text = fmt::format("{:.{}g}", std::fabs(number), digits);
  return fmt::format("{}{}", number < 0 ? "−" : "", text);
}

std::string show_percent(const Json& value, int decimals) {
  if (!is_finite_number(value)) return kMissing;
  return fmt::format("{:.{}f}{}%", 100 * value.get<double>(), decimals, kNarrowSpace);
}

std::string show_bytes(const Json& value) {
  if (!is_finite_number(value)) return kMissing;
  double bytes = value.get<double>();
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  for (; unit < 4 && bytes >= 999.5; ++unit) bytes /= 1000;
  return fmt::format("{:.{}f}{}{}", bytes, unit == 0 || bytes >= 99.95 ? 0 : 1, kNarrowSpace, units[unit]);
}

std::string show_seconds(const Json& value) {
  if (!is_finite_number(value)) return kMissing;
  double seconds = value.get<double>();
  if (seconds < 1) return fmt::format("{:.0f}{}ms", 1000 * seconds, kNarrowSpace);
  if (seconds < 10) return fmt::format("{:.1f}{}s", seconds, kNarrowSpace);
  int64_t whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{}{}s", whole, kNarrowSpace);
  if (whole < 3600) return fmt::format("{}{}min {}{}s", whole / 60, kNarrowSpace, whole % 60, kNarrowSpace);
  return fmt::format("{}{}h {}{}min", whole / 3600, kNarrowSpace, whole % 3600 / 60, kNarrowSpace);
}

std::string show_any(const Json& value) {
  if (value.is_null()) return "none";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return show_count(value);
  if (value.is_number()) return show_number(value, 6);
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += key + ": ";
    text += show_any(item);
  }
  return text.empty() ? "none" : text;
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

Json escape_all(const Json& value) {
  if (value.is_string()) return escape_html(value.get<std::string>());
  if (value.is_array()) {
    Json list = Json::array();
    for (const Json& item : value) list.push_back(escape_all(item));
    return list;
  }
  if (!value.is_object()) return value;
  Json object = Json::object();
  for (const auto& [key, item] : value.items()) object[escape_html(key)] = escape_all(item);
  return object;
}

std::string script_json(const Json& value) {
  std::string json = value.dump(-1, ' ', true, Json::error_handler_t::replace), safe;
  for (char c : json) {
    if (c == '<' || c == '>' || c == '&')
      safe += fmt::format("\\u{:04x}", static_cast<int>(c));
    else
      safe += c;
  }
  return safe;
}

}  // namespace retort
