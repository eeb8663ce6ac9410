#include "data/project_key.h"

#include <cstdlib>

#include "core/error.h"
#include "core/files.h"
#include "data/text_input.h"

namespace retort {

std::string project_key(const std::string& where, const std::string& option) {
  constexpr size_t fewest_bytes = 16;
  std::string text;
  if (where.starts_with("env:")) {
    const char* value = std::getenv(where.c_str() + 4);
    if (!value)
      fail(
          Exit::usage,
          "{}: the environment has no {}; set it to the project's key (for instance `openssl rand -hex 32`), or name a "
          "file",
          option, where.substr(4));
    text = value;
  } else {
    text = read_text(where, 1 << 16);
  }
  const std::string key(trim(text));
  if (key.size() < fewest_bytes)
    fail(Exit::usage,
         "{}: {} holds {} bytes; at least {} are needed, so that no one can guess it (openssl rand -hex 32)", option,
         where, key.size(), fewest_bytes);
  return key;
}

}  // namespace retort
