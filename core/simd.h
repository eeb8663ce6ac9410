// Functions that the compiler vectorizes for the processor they run on.
#pragma once

/// A function compiled for AVX-512, AVX2 and any x86-64; the dynamic linker picks one. Sanitized builds have one
/// version, because their run-time is not up when the linker picks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define RETORT_SIMD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define RETORT_SIMD
#endif
#define RETORT_INLINE [[gnu::always_inline]] inline
