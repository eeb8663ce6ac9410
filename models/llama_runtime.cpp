#include "models/llama_runtime.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/log.h"

namespace retort {

static thread_local LlamaCapture* innermost = nullptr;

/// The two callbacks that llama.cpp gets; one a process.
struct LlamaLog {
  /// "llama_model_load: error loading model: ..." -> "error loading model: ...".
  static std::string without_function(const std::string& line) {
    size_t colon = line.find(": ");
    bool name = colon != std::string::npos && line.find(' ') > colon;
    return name ? line.substr(colon + 2) : line;
  }

  static void take(ggml_log_level level, const std::string& line) {
    log::debug("llama.cpp: {}", line);
    LlamaCapture* capture = innermost;
    if (!capture) return;
    if (level == GGML_LOG_LEVEL_ERROR && capture->errors_.size() < 1000) {
      if (!capture->errors_.empty()) capture->errors_ += "; ";
      capture->errors_ += without_function(line);
    }
    if (size_t at = line.find("buffer size ="); at != std::string::npos) {
      double mebibytes = std::strtod(line.c_str() + at + std::strlen("buffer size ="), nullptr);
      capture->buffer_bytes_ += std::llround(mebibytes * 1024 * 1024);
    }
  }

  /// llama.cpp writes lines in pieces: a piece without a line end is continued by the next one.
  static void line(ggml_log_level level, const char* text, void*) {
    static thread_local std::string pending;
    static thread_local ggml_log_level pending_level = GGML_LOG_LEVEL_NONE;
    if (level != GGML_LOG_LEVEL_CONT) pending_level = level;
    pending += text;
    size_t end;
    while ((end = pending.find('\n')) != std::string::npos) {
      std::string whole = pending.substr(0, end);
      pending.erase(0, end + 1);
      if (whole.find_first_not_of('.') != std::string::npos) take(pending_level, whole);  // dots show progress
    }
  }

  static void abort(const char* message) {
    if (innermost && innermost->assertions_throw_) {
      // "path/file.cpp:2544: GGML_ASSERT(...) failed": the path is of the machine that built it.
      std::string text = message;
      size_t space = text.find(' ');
      if (size_t last = text.rfind('/', space); last != std::string::npos) text.erase(0, last + 1);
      throw Error(Exit::bad_input, text);
    }
    log::error("llama.cpp: {}", message);
  }
};

void start_llama() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(&LlamaLog::line, nullptr);
    ggml_set_abort_callback(&LlamaLog::abort);
    llama_backend_init();
  });
}

LlamaCapture::LlamaCapture(bool assertions_throw) : assertions_throw_(assertions_throw), outer_(innermost) {
  start_llama();
  innermost = this;
}

LlamaCapture::~LlamaCapture() { innermost = outer_; }

std::string LlamaCapture::errors() const { return errors_; }

std::shared_ptr<llama_model> load_llama(const std::filesystem::path& path, llama_model_params params) {
  if (int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) {
    ::close(fd);
  } else {
    fail(Exit::io, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  }
  LlamaCapture capture(true);
  params.check_tensors = true;
  llama_model* model = nullptr;
  try {
    model = llama_model_load_from_file(path.c_str(), params);
  } catch (const std::exception& error) {
    fail(Exit::bad_input, "{}: llama.cpp cannot load it: {}", path.string(), error.what());
  }
  if (!model) fail(Exit::bad_input, "{}: llama.cpp cannot load it: {}", path.string(), capture.errors());
  return {model, [](llama_model* loaded) { llama_model_free(loaded); }};
}

static std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int usable_cores() {
  std::set<std::string> cores;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      // Threads of one core show the same list.
      std::string siblings =
          first_line(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
      cores.insert(siblings.empty() ? fmt::format("cpu {}", cpu) : siblings);
    }
  }
  int count = std::max<int>(1, static_cast<int>(cores.size()));
  // cgroup v2: "max 100000" or "200000 100000" (microseconds of CPU time in each period).
  long quota = 0, period = 0;
  if (std::sscanf(first_line("/sys/fs/cgroup/cpu.max").c_str(), "%ld %ld", &quota, &period) == 2 && period > 0) {
    count = std::clamp<int>(static_cast<int>((quota + period - 1) / period), 1, count);
  }
  const char* threads = std::getenv("OMP_NUM_THREADS");
  const int most = threads ? std::atoi(threads) : 0;
  return most > 0 ? std::min(most, count) : count;
}

}  // namespace retort
