#include "recipes/retrain_attempts.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/log.h"
#include "recipes/notify.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr auto kAbandoned = std::chrono::days(7);

/// Runs of an attempt: <attempt>/<name>/<time>-<hash> with a report.
std::vector<fs::path> runs_of(const fs::path& attempt) {
  std::vector<fs::path> runs;
  std::error_code none;
  for (const auto& name : fs::directory_iterator(attempt, none)) {
    if (name.is_symlink(none) || !name.is_directory(none)) continue;
    for (const auto& run : fs::directory_iterator(name.path(), none))
      if (!run.is_symlink(none) && fs::exists(run.path() / "report.json", none)) runs.push_back(run.path());
  }
  return runs;
}

/// Tells one channel unless it knows; false when it could not be told.
bool tell(const NotifyOptions& options, Channel channel, const fs::path& attempt, std::vector<std::string>& failed) {
  const fs::path told = attempt / fmt::format("told.{}", name_of(channel));
  if (fs::exists(told)) return true;
  try {
    notify(options, channel, attempt / "verdict.json");
  } catch (const Error& error) {
    failed.push_back(error.what());
    return false;
  }
  write_atomic(told, "");
  return true;
}

}  // namespace

std::vector<Attempt> decided_attempts(const fs::path& folder, const std::string& model) {
  std::vector<Attempt> attempts;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const fs::path file = entry.path() / "verdict.json";
    if (!fs::exists(file, none)) continue;
    try {
      const Json verdict = read_json(file);
      const std::string where = file.string();
      if (json_get<std::string>(verdict, "model", where) != model) continue;
      attempts.push_back({.path = entry.path(),
                          .exit = json_get<int>(verdict, "exit", where),
                          .decided_at = json_get<int64_t>(verdict, "decided_at", where),
                          .trained = verdict.contains("run")});
    } catch (const Error& error) {
      log::warn("{}; it is left out: remove the folder, the registry has the verdict", error.what());
    }
  }
  std::sort(attempts.begin(), attempts.end(), [](const Attempt& a, const Attempt& b) {
    return std::tie(a.decided_at, a.path) < std::tie(b.decided_at, b.path);
  });
  return attempts;
}

std::vector<std::string> tell_verdicts(const NotifyOptions& options, const std::vector<Attempt>& attempts) {
  std::vector<std::string> failed;
  std::vector<Channel> channels = channels_of(options);
  bool all = true;
  for (const Attempt& attempt : attempts) {
    if (fs::exists(attempt.path / "told")) continue;
    const bool silent = attempt.exit == 0 && !options.when_nothing_is_due;
    if (!silent)
      all &=
          std::erase_if(channels, [&](Channel channel) { return !tell(options, channel, attempt.path, failed); }) == 0;
    if (silent || all) write_atomic(attempt.path / "told", "");
  }
  return failed;
}

void tidy_attempts(const std::vector<Attempt>& attempts, int64_t keep, const fs::path& now) {
  std::error_code none;
  int64_t with_run = 0, without = 0;
  for (auto attempt = attempts.rbegin(); attempt != attempts.rend(); ++attempt) {
    int64_t& newer = attempt->trained ? with_run : without;
    if (newer++ > keep && attempt->path != now) {
      fs::remove_all(attempt->path, none);
      continue;
    }
    for (const fs::path& run : runs_of(attempt->path)) fs::remove_all(run / "checkpoints", none);
  }
}

void tidy_abandoned(const fs::path& folder, const std::string& model, const fs::path& now) {
  std::error_code none;
  const auto limit = fs::file_time_type::clock::now() - kAbandoned;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const fs::path mark = entry.path() / "model";
    if (entry.path() == now || fs::exists(entry.path() / "verdict.json", none)) continue;
    if (!fs::exists(mark, none) || fs::last_write_time(mark, none) > limit || read_text(mark) != model) continue;
    fs::remove_all(entry.path(), none);
  }
}

void mark_attempt(const fs::path& attempt, const std::string& model) { write_atomic(attempt / "model", model); }

}  // namespace retort
