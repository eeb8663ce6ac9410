// The version of this build.
#pragma once

#include <string>

namespace retort {

/// "0.1.0", from CMake's project().
std::string version();

/// SHA-256 of this program's file: another build is another one, whatever its version says.
const std::string& build_hash();

}  // namespace retort
