// retort cache: what lies in the per-user cache, whether it is sound, and how to make room.
#include <fmt/chrono.h>

#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/files.h"
#include "core/sources.h"

namespace retort {
namespace {

int list() {
  uint64_t bytes = 0;
  std::vector<CacheEntry> entries = cache_entries();
  for (CacheEntry& derived : derived_entries()) entries.push_back(std::move(derived));
  for (const CacheEntry& entry : entries) {
    std::printf("%s\n", fmt::format("{:>9}  {:%Y-%m-%d %H:%M}  {}\n{:29}{}", format_bytes(entry.bytes),
                                    fmt::localtime(entry.used), entry.uri, "", entry.path.string())
                            .c_str());
    bytes += entry.bytes;
  }
  std::printf("%s\n", fmt::format("{:>9}  in {}", format_bytes(bytes), cache_folder().string()).c_str());
  return 0;
}

int verify() {
  const auto problems = verify_cache();
  for (const std::string& problem : problems) std::printf("%s\n", problem.c_str());
  if (problems.empty()) std::printf("%zu entries are sound\n", cache_entries().size());
  return problems.empty() ? 0 : static_cast<int>(Exit::bad_input);
}

std::function<int()> setup(CLI::App& app) {
  struct Arguments {
    int64_t days = 30;
    bool all = false;
  };
  auto arguments = std::make_shared<Arguments>();
  app.require_subcommand(1);
  CLI::App* list_app =
      app.add_subcommand("list", "what the cache holds: sources, used last first, and what was derived from them");
  CLI::App* verify_app = app.add_subcommand("verify", "read every file again and delete damaged ones");
  CLI::App* prune_app = app.add_subcommand("prune", "delete what was not used for a while");
  auto* days =
      prune_app->add_option("--older-than", arguments->days, "days without use (30)")->check(CLI::PositiveNumber);
  prune_app->add_flag("--all", arguments->all, "everything that sources brought")->excludes(days);
  return [=] {
    if (list_app->parsed()) return list();
    if (verify_app->parsed()) return verify();
    const uint64_t bytes = prune_cache(arguments->all ? 0 : arguments->days * 24 * 3600);
    std::printf("%s\n", fmt::format("{} became free", format_bytes(bytes)).c_str());
    return 0;
  };
}

}  // namespace

extern const Command command_cache;
const Command command_cache = {"cache", "List, verify or prune what was fetched.",
                               "  retort cache list\n"
                               "  retort cache verify\n"
                               "  retort cache prune --older-than 7\n"
                               "  retort cache prune --all\n",
                               setup};

}  // namespace retort
