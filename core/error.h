// Errors: the library throws retort::Error and never prints or exits; cli/ prints the message and exits with its code.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace retort {

/// Exit codes of the program (docs/architecture.md lists them).
enum class Exit : int {
  done = 0,
  drift = 10,  ///< the domain has moved: retraining is due
  data_guard = 20,
  contamination = 21,
  gate_refused = 22,
  usage = 64,        ///< command line or recipe
  bad_input = 65,    ///< a file's content
  unavailable = 69,  ///< a source or package that cannot be had
  internal = 70,
  io = 74,
  retry = 75,  ///< lock held, or stopped by a signal after a checkpoint
};

/// What went wrong, where (file:line, key, tensor), what was found, what is allowed, what to do next.
class Error : public std::runtime_error {
 public:
  Error(Exit exit, const std::string& message) : std::runtime_error(message), exit_(exit) {}
  Exit exit() const { return exit_; }

 private:
  Exit exit_;
};

/// Throws Error with a formatted message.
template <typename... A>
[[noreturn]] void fail(Exit exit, fmt::format_string<A...> format, A&&... arguments) {
  throw Error(exit, fmt::format(format, std::forward<A>(arguments)...));
}

}  // namespace retort
