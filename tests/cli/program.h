// The program as a shell runs it.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/process.h"

extern char** environ;

namespace retort {

inline ProcessResult retort(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {RETORT_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_program(command);
}

/// The program while it runs; its output goes to `log`.
class Running {
 public:
  Running(std::vector<std::string> arguments, const std::string& log) {
    arguments.insert(arguments.begin(), RETORT_PROGRAM);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    const int error = posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start the program");
  }
  ~Running() {
    if (pid_ > 0) send(SIGKILL), wait();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  /// Nothing when the program has ended: -1 would name every process there is.
  void send(int signal) const {
    if (pid_ > 0) kill(pid_, signal);
  }
  /// False when the program ended before `done` held.
  template <typename F>
  bool until(F&& done) {
    while (!done()) {
      if (waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
      if (pid_ < 0) return false;
      usleep(500);
    }
    return true;
  }
  /// The exit status; 128 + n after signal n.
  int wait() {
    while (pid_ > 0 && waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
};

}  // namespace retort
