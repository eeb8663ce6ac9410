#include "core/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>

#include "core/error.h"

extern char** environ;

namespace retort {
namespace {

constexpr size_t kKept = 1 << 20;

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail(Exit::internal, "cannot open a pipe: {}", std::strerror(errno));
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close(read_end);
    close_write();
  }
  void close_write() {
    if (write_end >= 0) close(write_end);
    write_end = -1;
  }
};

struct FileActions {
  posix_spawn_file_actions_t actions;
  FileActions() { posix_spawn_file_actions_init(&actions); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions); }
};

// Reads what is there; false at the end.
bool drain(int fd, std::string& text) {
  char buffer[1 << 14];
  const ssize_t n = read(fd, buffer, sizeof buffer);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  text.append(buffer, static_cast<size_t>(n));
  if (text.size() > 2 * kKept) text.erase(0, text.size() - kKept);
  return n > 0;
}

}  // namespace

ProcessResult run_program(const std::vector<std::string>& argv, const std::filesystem::path& folder,
                          const ProcessOptions& options) {
  Pipe out, err;
  FileActions files;
  auto* actions = &files.actions;
  if (!folder.empty()) posix_spawn_file_actions_addchdir_np(actions, folder.c_str());
  const std::string input = options.input_file.empty() ? "/dev/null" : std::filesystem::absolute(options.input_file);
  posix_spawn_file_actions_addopen(actions, 0, input.c_str(), O_RDONLY, 0);
  if (options.output_file.empty()) {
    posix_spawn_file_actions_adddup2(actions, out.write_end, 1);
  } else {
    posix_spawn_file_actions_addopen(actions, 1, options.output_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  }
  posix_spawn_file_actions_adddup2(actions, err.write_end, 2);

  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  if (options.seconds > 0) {  // a group of its own, so that its children can be ended with it
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
  }
  const int error = posix_spawnp(&pid, argv[0].c_str(), actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) fail(Exit::unavailable, "{}: cannot run this program: {}", argv[0], std::strerror(error));
  out.close_write();
  err.close_write();

  ProcessResult result;
  pollfd ends[2] = {{out.read_end, POLLIN, 0}, {err.read_end, POLLIN, 0}};
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.seconds);
  bool ended = options.seconds <= 0;
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    const std::chrono::duration<double, std::milli> left = end - std::chrono::steady_clock::now();
    if (!ended && left.count() <= 0) {
      kill(-pid, SIGKILL);
      ended = true;
    }
    const int ready = poll(ends, 2, ended ? -1 : static_cast<int>(std::ceil(left.count())));
    if (ready < 0 && errno != EINTR) break;
    if (ready <= 0) continue;
    if (ends[0].fd >= 0 && ends[0].revents && !drain(ends[0].fd, result.output)) ends[0].fd = -1;
    if (ends[1].fd >= 0 && ends[1].revents && !drain(ends[1].fd, result.errors)) ends[1].fd = -1;
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace retort
