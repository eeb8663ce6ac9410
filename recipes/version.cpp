#include "recipes/version.h"

namespace retort {

std::string version() { return RETORT_VERSION; }

}  // namespace retort
