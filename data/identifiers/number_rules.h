// How each number is written, and what must stand beside it before digits alone are taken for it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace retort {

/// A way to write a number: '#' is a letter or digit of it, anything else a separator that must be there.
struct NumberForm {
  std::string pattern;
  bool needs_context;  ///< too many other numbers look like this one and pass its check
};

struct NumberRule {
  const char* name;
  const char* text;  ///< one line for the reference
  bool (*valid)(std::string_view number);
  std::vector<NumberForm> forms;
  /// Words in lower case, '|' between them: one of them must begin within 64 bytes before or end within 32 bytes after.
  const char* context = "";
  bool lower_case = false;       ///< letters may all be in lower case
  bool with_separators = false;  ///< `valid` wants them: they are part of the number
};

/// In the order in which they are preferred where two fit.
const std::vector<NumberRule>& number_rules();

}  // namespace retort
