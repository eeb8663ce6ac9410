// Progress of long work. Libraries report it; only cli/ switches its display on.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace retort {

/// A bar on a terminal, a plain line now and then elsewhere, both on stderr; off until switched on.
void show_progress(bool on);

/// One piece of work with a known or unknown (0) number of parts.
class Progress {
 public:
  enum class Unit { count, bytes };
  Progress(std::string what, int64_t total, int64_t done = 0, Unit unit = Unit::count);
  /// Ends the bar's line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `suffix`: free text behind the bar, such as "loss 1.23  345 tokens/s  1.2 GB".
  void update(int64_t done, const std::string& suffix = {});

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(int64_t done, const std::string& suffix, bool bar) const;

  std::string what_;
  int64_t total_, first_;
  Unit unit_;
  Clock::time_point start_, shown_;
  std::string last_;
  bool drawn_ = false;
};

/// "1.2 GB", "345 kB": powers of 1000.
std::string human_bytes(int64_t bytes);
/// "1:05" or "2:03:04".
std::string human_seconds(double seconds);

}  // namespace retort
