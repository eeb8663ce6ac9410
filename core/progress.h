// How far a long piece of work is. The library reports to a Progress; what shows it (a bar, lines, nothing) is made by
// cli.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace retort {

/// What is known at one moment.
struct ProgressState {
  std::string task;              ///< "train", "smollm2.gguf"
  uint64_t done = 0, total = 0;  ///< total 0: not known
  uint64_t first = 0;            ///< where this process began (a resumed download or run)
  bool bytes = false;            ///< done and total count bytes
  double seconds = 0;            ///< since the start
  std::string suffix;            ///< free text: "loss 1.23  345 tokens/s  1.2 GB"
  bool finished = false;
};

/// "train  ███████▌      52 % 130/250  2.1/s  0:57 left  loss 1.23", at most `width` columns; no bar when `bar` is
/// false.
std::string render_progress(const ProgressState& state, int width, bool bar);

/// "1.2 GB"
std::string format_bytes(uint64_t bytes);

/// Gets every state that is worth showing; empty for silence.
using ProgressSink = std::function<void(const ProgressState&)>;

/// Reports of one worker, from one thread. Copies share nothing; a default one is silent and costs nothing.
class Progress {
 public:
  Progress() = default;
  explicit Progress(ProgressSink sink) : sink_(std::move(sink)) {}

  void start(std::string task, uint64_t total, bool bytes = false, uint64_t first = 0);
  void update(uint64_t done, std::string suffix = {});
  /// The last word on the task; the suffix stays when none is given.
  void finish(std::string suffix = {});

 private:
  void show();
  ProgressSink sink_;
  ProgressState state_;
  std::chrono::steady_clock::time_point start_;
};

/// Writes to a file descriptor: a bar redrawn ten times a second on a terminal, else a plain line every `line_seconds`,
/// and in both cases one line when a task ends. A log that writes to the same terminal begins its lines with
/// "\r\x1b[K".
ProgressSink stream_progress(int fd = 2, double line_seconds = 10);

}  // namespace retort
