#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace retort {
namespace {

std::string quantity(double value, bool bytes) {
  if (!bytes)
    return value >= 100 || value == std::floor(value) ? fmt::format("{:.0f}", value) : fmt::format("{:.2g}", value);
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < std::size(units); ++unit) value /= 1000;
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 99.95 ? 0 : 1, units[unit]);
}

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(std::ceil(seconds));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

// Columns of UTF-8 text without wide characters.
size_t columns(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

std::string cut(const std::string& text, size_t width) {
  size_t end = 0;
  for (size_t count = 0; end < text.size(); ++end) {
    if ((text[end] & 0xc0) != 0x80 && ++count > width) break;
  }
  return text.substr(0, end);
}

std::string bar_of(double share, int width) {
  static const char* const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int filled = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width * 8));
  std::string bar;
  for (int i = 0; i < filled / 8; ++i) bar += "█";
  bar += eighths[filled % 8];
  bar.append(static_cast<size_t>(width - (filled + 7) / 8), ' ');
  return bar;
}

int terminal_width(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

void write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    if (n <= 0) return;  // nobody reads: the work goes on
    at += static_cast<size_t>(n);
  }
}

}  // namespace

std::string render_progress(const ProgressState& s, int width, bool bar) {
  std::string head = s.task, tail;
  const double rate = s.seconds > 0 ? static_cast<double>(s.done - std::min(s.first, s.done)) / s.seconds : 0;
  const double share = s.total > 0 ? static_cast<double>(s.done) / static_cast<double>(s.total) : 0;
  if (s.total > 0) {
    tail += fmt::format(" {:3.0f} %", std::floor(std::min(share, 1.0) * 100));
    tail += fmt::format("  {}/{}", quantity(static_cast<double>(s.done), s.bytes),
                        quantity(static_cast<double>(s.total), s.bytes));
  } else {
    tail += "  " + quantity(static_cast<double>(s.done), s.bytes);
  }
  if (rate > 0) tail += fmt::format("  {}/s", quantity(rate, s.bytes));
  if (s.finished) {
    tail += fmt::format("  in {}", duration(s.seconds));
  } else if (s.total > s.done && rate > 0) {
    tail += fmt::format("  {} left", duration(static_cast<double>(s.total - s.done) / rate));
  }
  if (!s.suffix.empty()) tail += "  " + s.suffix;
  if (!bar) return head + ":" + tail;
  const int room = width - static_cast<int>(columns(head) + columns(tail)) - 1;
  if (s.total > 0 && room >= 5) head += fmt::format(" {}", bar_of(share, std::min(room, 30)));
  return cut(head + tail, static_cast<size_t>(width));
}

std::string format_bytes(uint64_t bytes) { return quantity(static_cast<double>(bytes), true); }

void Progress::start(std::string task, uint64_t total, bool bytes, uint64_t first) {
  state_ = {};
  state_.task = std::move(task);
  state_.done = state_.first = first;
  state_.total = total;
  state_.bytes = bytes;
  start_ = std::chrono::steady_clock::now();
  show();
}

void Progress::update(uint64_t done, std::string suffix) {
  state_.done = done;
  state_.suffix = std::move(suffix);
  show();
}

void Progress::finish(std::string suffix) {
  state_.finished = true;
  if (!suffix.empty()) state_.suffix = std::move(suffix);
  show();
}

void Progress::show() {
  if (!sink_) return;
  state_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  sink_(state_);
}

ProgressSink stream_progress(int fd, double line_seconds) {
  const bool terminal = isatty(fd);
  const double interval = terminal ? 0.1 : line_seconds;
  return [fd, terminal, interval, last = 0.0](const ProgressState& state) mutable {
    if (state.done == state.first && !state.finished) last = terminal ? -interval : 0.0;  // a new task
    if (!state.finished && state.seconds - last < interval) return;
    last = state.seconds;
    if (terminal) {
      write_all(fd, "\r\x1b[K" + render_progress(state, terminal_width(fd) - 1, !state.finished) +
                        (state.finished ? "\n" : ""));
    } else {
      write_all(fd, render_progress(state, 0, false) + "\n");
    }
  };
}

}  // namespace retort
