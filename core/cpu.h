// What the processor can do, asked when the program runs.
#pragma once

#include <string>

namespace retort {

struct CpuFeatures {
  std::string model;  ///< /proc/cpuinfo's "model name"
  bool avx2 = false, avx512f = false, avx512_bf16 = false, amx_bf16 = false;
};

const CpuFeatures& cpu_features();

}  // namespace retort
