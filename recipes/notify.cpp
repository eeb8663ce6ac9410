#include "recipes/notify.h"

#include "core/error.h"
#include "core/files.h"
#include "core/http.h"
#include "core/process.h"

namespace retort {

constexpr double kLongest = 600;  // seconds that the program may take

const char* name_of(Channel channel) { return channel == Channel::command ? "command" : "webhook"; }

std::vector<Channel> channels_of(const NotifyOptions& options) {
  std::vector<Channel> channels;
  if (!options.command.empty()) channels.push_back(Channel::command);
  if (!options.webhook.empty()) channels.push_back(Channel::webhook);
  return channels;
}

void notify(const NotifyOptions& options, Channel channel, const std::filesystem::path& verdict) {
  if (channel == Channel::webhook) return http_post(options.webhook, read_text(verdict));
  const ProcessResult result = run_program(options.command, {}, {.input_file = verdict, .seconds = kLongest});
  if (result.status == 0) return;
  const size_t shown = std::min<size_t>(result.errors.size(), 500);
  fail(Exit::unavailable, "notify.command: {} ended with {}: {}", options.command.front(), result.status,
       result.errors.substr(result.errors.size() - shown));
}

}  // namespace retort
