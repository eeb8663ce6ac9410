// SIGINT and SIGTERM as a flag that long work polls.
#pragma once

namespace retort {

/// While one lives, the first SIGINT or SIGTERM only sets a flag; the second one ends the process as it would without.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  bool requested() const;
};

}  // namespace retort
