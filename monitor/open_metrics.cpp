#include "monitor/open_metrics.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/error.h"

namespace retort {
namespace {

bool is_name(std::string_view name) {
  auto allowed = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  return !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(), allowed);
}

/// Backslash, line end and double quote are the three that the format escapes.
std::string escaped(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n')
      result += "\\n";
    else
      result += c;
  }
  return result;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

}  // namespace

void OpenMetrics::gauge(std::string_view name, std::string_view help) {
  if (!is_name(name) || std::find(families_.begin(), families_.end(), name) != families_.end())
    fail(Exit::internal, "\"{}\" cannot be a metric's name here", name);
  family_ = name;
  families_.push_back(family_);
  text_ += fmt::format("# TYPE {} gauge\n# HELP {} {}\n", name, name, escaped(help));
}

void OpenMetrics::sample(const Labels& labels, double value) {
  text_ += family_;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (!is_name(labels[i].first)) fail(Exit::internal, "\"{}\" cannot be a label's name", labels[i].first);
    text_ += fmt::format("{}{}=\"{}\"", i == 0 ? "{" : ",", labels[i].first, escaped(labels[i].second));
  }
  text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", number(value));
}

}  // namespace retort
