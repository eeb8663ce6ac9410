#include "core/cpu.h"

#include <sched.h>

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

namespace retort {
namespace {

Cpu read_cpu() {
  Cpu cpu{.model = "unknown"};
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpu.threads = CPU_COUNT(&mask);
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line) && !line.empty();) {  // an empty line ends the first processor
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string value = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (line.starts_with("model name")) cpu.model = value;
    if (line.starts_with("flags")) {
      std::istringstream words(value);
      const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
      cpu.avx2 = flags.contains("avx2");
      cpu.avx512f = flags.contains("avx512f");
      cpu.avx512_bf16 = flags.contains("avx512_bf16");
      cpu.amx_bf16 = flags.contains("amx_bf16");
    }
  }
  return cpu;
}

}  // namespace

const Cpu& cpu() {
  static const Cpu value = read_cpu();
  return value;
}

}  // namespace retort
