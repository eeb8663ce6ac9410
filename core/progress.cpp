#include "core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

namespace retort {

static std::atomic<bool> shown{false};

void show_progress(bool on) { shown = on; }

static bool on_terminal() { return isatty(STDERR_FILENO) != 0; }

static size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

std::string human_bytes(int64_t bytes) {
  static const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(units)) value /= 1000, ++unit;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, units[unit]);
}

std::string human_seconds(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                      : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

Progress::Progress(std::string what, int64_t total, int64_t done, Unit unit)
    : what_(std::move(what)), total_(total), first_(done), unit_(unit), start_(Clock::now()), shown_() {}

Progress::~Progress() {
  if (drawn_) std::fprintf(stderr, on_terminal() ? "\r\x1b[K%s\n" : "%s\n", last_.c_str());
}

std::string Progress::line(int64_t done, const std::string& suffix, bool bar) const {
  const auto number = [this](int64_t n) { return unit_ == Unit::bytes ? human_bytes(n) : fmt::format("{}", n); };
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  std::string text = what_ + " ";
  if (total_ > 0) {
    const double part = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    if (bar) {
      const int filled = static_cast<int>(part * 20);
      for (int i = 0; i < 20; ++i) text += i < filled ? "━" : "╌";
      text += " ";
    }
    text += fmt::format("{}/{} {:.0f} %", number(done), number(total_), 100 * part);
    if (done > first_ && done < total_)
      text += fmt::format("  {} left", human_seconds(seconds / static_cast<double>(done - first_) *
                                                     static_cast<double>(total_ - done)));
    else
      text += fmt::format("  {}", human_seconds(seconds));
  } else {
    text += fmt::format("{}  {}", number(done), human_seconds(seconds));
  }
  if (unit_ == Unit::bytes && seconds > 0.5)
    text += fmt::format("  {}/s", human_bytes(static_cast<int64_t>(static_cast<double>(done - first_) / seconds)));
  if (!suffix.empty()) text += "  " + suffix;
  return text;
}

// Cuts to the terminal's width by code points, so that a narrow window never wraps the bar into a mess.
static std::string cut(const std::string& text, size_t columns) {
  size_t seen = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && seen++ == columns) return text.substr(0, i);
  return text;
}

void Progress::update(int64_t done, const std::string& suffix) {
  if (!shown) return;
  const bool terminal = on_terminal();
  const auto now = Clock::now();
  // A line every ten seconds is enough for a log; a bar moves ten times a second.
  const auto pause = terminal ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  last_ = line(done, suffix, terminal);
  if (!terminal && shown_ == Clock::time_point{}) shown_ = start_;
  if (now - shown_ < pause) {
    drawn_ = drawn_ || done >= total_;
    return;
  }
  shown_ = now;
  drawn_ = true;
  if (terminal)
    std::fprintf(stderr, "\r\x1b[K%s", cut(last_, terminal_columns() - 1).c_str());
  else if (done < total_ || total_ == 0)
    std::fprintf(stderr, "%s\n", last_.c_str());
}

}  // namespace retort
