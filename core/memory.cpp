#include "core/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace retort {

int64_t resident_bytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

// A control group's file holds a number or "max".
static int64_t limit_in(const char* path) {
  int64_t value = 0;
  return std::ifstream(path) >> value ? value : std::numeric_limits<int64_t>::max();
}

int64_t available_bytes() {
  int64_t available = std::numeric_limits<int64_t>::max();
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key; info.ignore(std::numeric_limits<std::streamsize>::max(), '\n'))
    if (key == "MemAvailable:") {
      info >> available;
      available *= 1024;
      break;
    }
  const int64_t limit = limit_in("/sys/fs/cgroup/memory.max");
  if (limit != std::numeric_limits<int64_t>::max())
    available = std::min(available, std::max<int64_t>(0, limit - limit_in("/sys/fs/cgroup/memory.current")));
  return available;
}

}  // namespace retort
