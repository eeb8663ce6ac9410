// How much memory this process holds, and how much there is.
#pragma once

#include <cstdint>

namespace retort {

/// Resident set now, in bytes.
int64_t resident_bytes();
/// Highest resident set so far, in bytes.
int64_t peak_resident_bytes();
/// What can still be allocated without swapping: MemAvailable, bounded by the control group's limit.
int64_t available_bytes();

}  // namespace retort
