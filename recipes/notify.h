// Who is told of a verdict: a program with the verdict on its stdin, and a URL that gets it by POST.
#pragma once

#include <filesystem>
#include <vector>

#include "recipes/retrain_options.h"

namespace retort {

enum class Channel { command, webhook };
const char* name_of(Channel channel);

/// Those that the options name.
std::vector<Channel> channels_of(const NotifyOptions& options);

/// Tells one of them, with the content of the JSON file `verdict`. The program has ten minutes. Errors: unavailable
/// (the program failed, the URL did not take it), retry (stopped by a signal), usage (a URL that is no https://).
void notify(const NotifyOptions& options, Channel channel, const std::filesystem::path& verdict);

}  // namespace retort
