#include "core/signals.h"

#include <csignal>

namespace retort {

static volatile std::sig_atomic_t stop_requested = 0;
static struct sigaction old_interrupt, old_terminate;

// One-shot: SA_RESETHAND gives the second signal back to the system.
extern "C" {
static void request_stop(int) { stop_requested = 1; }
}

StopSignals::StopSignals() {
  stop_requested = 0;
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &old_interrupt);
  sigaction(SIGTERM, &action, &old_terminate);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &old_interrupt, nullptr);
  sigaction(SIGTERM, &old_terminate, nullptr);
}

bool StopSignals::requested() const { return stop_requested != 0; }

}  // namespace retort
