#include "core/cpu.h"

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

namespace retort {

static CpuFeatures read_features() {
  CpuFeatures features;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line) && !line.empty();) {  // the first processor's paragraph
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) features.model = line.substr(colon + 2);
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(colon + 2));
    const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
    features.avx2 = flags.contains("avx2") && flags.contains("fma");
    features.avx512f = flags.contains("avx512f");
    features.avx512_bf16 = flags.contains("avx512_bf16");
    features.amx_bf16 = flags.contains("amx_bf16");
  }
  return features;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = read_features();
  return features;
}

}  // namespace retort
