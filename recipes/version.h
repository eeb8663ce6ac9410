// The version of this build.
#pragma once

#include <string>

namespace retort {

/// "0.1.0", from CMake's project().
std::string version();

}  // namespace retort
