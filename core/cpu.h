// What the processor can do, as far as choices of kernels depend on it.
#pragma once

#include <string>

namespace retort {

struct Cpu {
  std::string model;  ///< "AMD EPYC 7B13", or "unknown"
  int threads = 1;    ///< that this process may run on
  bool avx2 = false, avx512f = false, avx512_bf16 = false, amx_bf16 = false;
};

/// Read once from the kernel, which also knows what it has switched off.
const Cpu& cpu();

}  // namespace retort
