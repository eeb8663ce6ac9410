// Logging: spdlog's default logger, set up by cli/. The library logs what a run did; it never prints results.
#pragma once

#include <spdlog/spdlog.h>

namespace retort {
namespace log {
using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;
}  // namespace log
}  // namespace retort
