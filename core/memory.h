// What the process and the machine have of memory, in bytes; 0 where the system does not say.
#pragma once

#include <cstdint>

namespace retort {

/// Resident now, and the most since the start or the last reset. Mapped files count while their pages are in memory.
uint64_t resident_bytes();
uint64_t peak_resident_bytes();
/// What resident_bytes() is made of (smaps in proc(5)).
struct ResidentParts {
  uint64_t own = 0;       ///< of the allocator, stacks, and pages of files that were written to
  uint64_t programs = 0;  ///< pages of files with code: the program and its libraries
  uint64_t files = 0;     ///< pages of other files, mapped weights above all
};
ResidentParts resident_parts();
void reset_peak_resident_bytes();
/// Gives back what the allocator holds and nobody uses.
void release_free_memory();
/// What can still be taken without swapping: the machine's, or less where a control group sets a limit.
uint64_t available_memory_bytes();

}  // namespace retort
