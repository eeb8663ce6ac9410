#include "recipes/version.h"

#include "core/hash.h"

namespace retort {

std::string version() { return RETORT_VERSION; }

const std::string& build_hash() {
  static const std::string hash = sha256_file("/proc/self/exe");
  return hash;
}

}  // namespace retort
