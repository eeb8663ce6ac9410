#include "recipes/notify.h"

#include "core/error.h"
#include "core/files.h"
#include "core/http.h"
#include "core/process.h"

namespace retort {

constexpr double kLongest = 600;  // seconds that the program may take

std::vector<std::string> notify(const NotifyOptions& options, const std::filesystem::path& verdict) {
  std::vector<std::string> failed;
  const auto attempt = [&](auto&& tell) {
    try {
      tell();
    } catch (const Error& error) {
      failed.push_back(error.what());
    }
  };
  if (!options.command.empty()) {
    attempt([&] {
      const ProcessResult result = run_program(options.command, {}, {.input_file = verdict, .seconds = kLongest});
      if (result.status == 0) return;
      const size_t shown = std::min<size_t>(result.errors.size(), 500);
      fail(Exit::unavailable, "notify.command: {} ended with {}: {}", options.command.front(), result.status,
           result.errors.substr(result.errors.size() - shown));
    });
  }
  if (!options.webhook.empty()) attempt([&] { http_post(options.webhook, read_text(verdict)); });
  return failed;
}

}  // namespace retort
