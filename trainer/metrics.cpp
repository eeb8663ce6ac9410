#include "trainer/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "trainer/tensorboard.h"

namespace retort {
namespace {

[[noreturn]] void fail_errno(const std::filesystem::path& path, const char* what) {
  fail(Exit::io, "{}: cannot {}: {}", path.string(), what, std::strerror(errno));
}

}  // namespace

Json StepMetrics::to_json() const {
  Json line{{"step", step},
            {"epoch", epoch},
            {"loss", loss},
            {"learning_rate", learning_rate},
            {"grad_norm", grad_norm},
            {"tokens", tokens},
            {"trained_tokens", trained_tokens}};
  if (validation_loss) {
    line["validation_loss"] = *validation_loss;
    line["validation_perplexity"] = std::exp(*validation_loss);
  }
  for (const auto& [name, value] : measured) line[name] = value;
  line["tokens_per_second"] = tokens_per_second;
  line["memory_bytes"] = memory_bytes;
  line["wall_time"] = wall_time;
  return line;
}

MetricsLog::Output::Output(const std::filesystem::path& file, uint64_t length_at_start)
    : path(file), length(length_at_start) {
  std::error_code ignored;  // open() says what is wrong
  std::filesystem::create_directories(path.parent_path(), ignored);
  fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) fail_errno(path, "open for appending");
  struct stat info {};
  const bool known = fstat(fd, &info) == 0;
  if (known && static_cast<uint64_t>(info.st_size) < length) {
    ::close(fd);
    fail(Exit::io,
         "{}: has {} bytes, but the checkpoint was written when it had {}. Put the file back, or delete the newest "
         "checkpoint "
         "to resume from an older one",
         path.string(), info.st_size, length);
  }
  if (!known || ftruncate(fd, static_cast<off_t>(length)) != 0) {
    const int error = errno;
    ::close(fd);
    errno = error;
    fail_errno(path, "cut back");
  }
}

MetricsLog::Output::~Output() { ::close(fd); }

void MetricsLog::Output::append(const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "write");
    done += static_cast<size_t>(n);
    length += static_cast<uint64_t>(n);
  }
}

void MetricsLog::Output::sync() const {
  if (fsync(fd) != 0) fail_errno(path, "fsync");
}

MetricsLog::MetricsLog(const std::filesystem::path& folder, const Lengths& lengths)
    : metrics_(folder / "metrics.jsonl", lengths.metrics),
      tensorboard_(folder / "tensorboard" / "events.out.tfevents.0.retort", lengths.tensorboard) {}

void MetricsLog::write(const StepMetrics& m) {
  metrics_.append(m.to_json().dump() + "\n");
  std::map<std::string, float> scalars{{"train/loss", float(m.loss)},
                                       {"train/learning_rate", float(m.learning_rate)},
                                       {"train/grad_norm", float(m.grad_norm)},
                                       {"train/tokens_per_second", float(m.tokens_per_second)},
                                       {"train/memory_bytes", float(m.memory_bytes)}};
  if (m.validation_loss) scalars["validation/loss"] = float(*m.validation_loss);
  for (const auto& [name, value] : m.measured) scalars["train/" + name] = float(value);
  if (tensorboard_.length == 0) tensorboard_.append(tensorboard_header(m.wall_time));
  tensorboard_.append(tensorboard_scalars(m.wall_time, m.step, scalars));
}

MetricsLog::Lengths MetricsLog::sync() {
  metrics_.sync();
  tensorboard_.sync();
  return {metrics_.length, tensorboard_.length};
}

}  // namespace retort
