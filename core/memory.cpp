#include "core/memory.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string>

// gperftools' tcmalloc, where the program is linked with it.
extern "C" __attribute__((weak)) void MallocExtension_ReleaseFreeMemory();

namespace retort {
namespace {

// "VmRSS:    1234 kB" in a file of such lines, in bytes.
uint64_t line_of(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + ":")) return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  }
  return 0;
}

// A file with one number; `otherwise` when there is none ("max" is no limit).
uint64_t number_in(const std::string& file, uint64_t otherwise) {
  uint64_t value = 0;
  return std::ifstream(file) >> value ? value : otherwise;
}

// "inactive_file 123": page cache that the kernel gives back when it is asked for.
uint64_t reclaimable(const std::string& file, const std::string& name) {
  std::ifstream in(file);
  std::string key;
  for (uint64_t value; in >> key >> value;) {
    if (key == name) return value;
  }
  return 0;
}

uint64_t left_in_group(uint64_t limit, uint64_t used, uint64_t cache) {
  used -= std::min(used, cache);
  return limit - std::min(limit, used);
}

// What this process's control groups, and those above them, leave.
uint64_t group_available() {
  constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  uint64_t available = kNone;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos) continue;
    const bool v2 = second == first + 1;
    if (!v2 && line.substr(first + 1, second - first - 1) != "memory") continue;
    // Inside a container the path may name a place outside of what is mounted; the loop then ends at the mount's root.
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      if (path == "/") path.clear();
      const std::string folder = (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory") + path + "/";
      const uint64_t limit = number_in(folder + (v2 ? "memory.max" : "memory.limit_in_bytes"), kNone);
      const uint64_t used = number_in(folder + (v2 ? "memory.current" : "memory.usage_in_bytes"), 0);
      if (limit != kNone) {
        const uint64_t cache = reclaimable(folder + "memory.stat", v2 ? "inactive_file" : "total_inactive_file");
        available = std::min(available, left_in_group(limit, used, cache));
      }
      if (path.rfind('/') == path.npos) break;
    }
  }
  return available;
}

}  // namespace

uint64_t resident_bytes() { return line_of("/proc/self/status", "VmRSS"); }
ResidentParts resident_parts() {
  struct File {
    uint64_t bytes = 0;
    bool code = false;
  };
  std::map<std::string, File> files;
  ResidentParts parts;
  std::ifstream in("/proc/self/smaps");
  File none, *file = &none;
  for (std::string line; std::getline(in, line);) {
    // "7f00-7f10 r-xp 00000000 08:01 1234   /path", then lines of "Rss:   12 kB"; inode 0 is memory
    char permissions[5], device[32];
    uint64_t inode = 0, kilobytes = 0;
    if (std::sscanf(line.c_str(), "%*x-%*x %4s %*x %31s %lu", permissions, device, &inode) == 3) {
      file = inode == 0 ? &none : &files[fmt::format("{} {}", device, inode)];
      file->code |= permissions[2] == 'x';
    } else if (std::sscanf(line.c_str(), "Rss: %lu kB", &kilobytes) == 1) {
      file->bytes += kilobytes * 1024;
    } else if (std::sscanf(line.c_str(), "Anonymous: %lu kB", &kilobytes) == 1) {
      parts.own += kilobytes * 1024;
      file->bytes -= kilobytes * 1024;
    }
  }
  for (const auto& [name, f] : files) (f.code ? parts.programs : parts.files) += f.bytes;
  return parts;
}
uint64_t peak_resident_bytes() { return line_of("/proc/self/status", "VmHWM"); }
void release_free_memory() {
  if (MallocExtension_ReleaseFreeMemory)
    MallocExtension_ReleaseFreeMemory();
  else
    malloc_trim(0);
}

void reset_peak_resident_bytes() { std::ofstream("/proc/self/clear_refs") << "5"; }

uint64_t available_memory_bytes() { return std::min(line_of("/proc/meminfo", "MemAvailable"), group_available()); }

}  // namespace retort
