// The project's key: what hashes of personal data are made with, so that nobody without it can try out what they are
// of.
#pragma once

#include <string>

namespace retort {

/// The key at `where`: env:NAME, or a file. White space at its ends does not count. `option` is what the recipe calls
/// it, for messages. Error(usage) when there is none or it has fewer than 16 bytes, Error(io) for a file that cannot be
/// read.
std::string project_key(const std::string& where, const std::string& option);

}  // namespace retort
