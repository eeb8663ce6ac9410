// What the process and the machine have of memory, in bytes; 0 where the system does not say.
#pragma once

#include <cstdint>

namespace retort {

/// Resident now, and the most since the start or the last reset. Mapped files count while their pages are in memory.
uint64_t resident_bytes();
uint64_t peak_resident_bytes();
/// The part of resident_bytes() that is pages of files: the program, its libraries, mapped weights.
uint64_t mapped_resident_bytes();
void reset_peak_resident_bytes();
/// Gives back what the allocator holds and nobody uses.
void release_free_memory();
/// What can still be taken without swapping: the machine's, or less where a control group sets a limit.
uint64_t available_memory_bytes();

}  // namespace retort
