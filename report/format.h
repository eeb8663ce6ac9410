// Figures as people read them. A missing or mistyped figure is an en dash.
#pragma once

#include <string>

#include "core/json.h"

namespace retort {

/// The value at a JSON pointer such as "/train/steps", or null.
const Json& value_at(const Json& object, const std::string& pointer);
/// The same as text; empty where there is none.
std::string text_at(const Json& object, const std::string& pointer);
/// The array there, or an empty one.
const Json& list_at(const Json& object, const std::string& pointer);

std::string show_count(const Json& value);                   ///< 12,014
std::string show_number(const Json& value, int digits = 3);  ///< significant digits: 0.00123
std::string show_percent(const Json& value, int decimals = 1);
std::string show_bytes(const Json& value);    ///< 98.1 MB (decimal, as file managers and hubs show it)
std::string show_seconds(const Json& value);  ///< 85 ms, 3.2 s, 7 min 41 s, 2 h 5 min
/// Any value on one line: texts as they are, lists with commas, objects as "key: value".
std::string show_any(const Json& value);

/// For HTML text and quoted attributes.
std::string escape_html(const std::string& text);
/// Every text in the value, keys too, through escape_html.
Json escape_all(const Json& value);
/// JSON that may stand inside a <script> element.
std::string script_json(const Json& value);

}  // namespace retort
