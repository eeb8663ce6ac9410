// The program: finds the subcommand, prints errors, turns them into exit codes.
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "cli/command.h"
#include "core/error.h"
#include "core/log.h"
#include "core/schema.h"
#include "recipes/version.h"

namespace retort {
#define KIND(name) extern const Command command_##name;
#include "command_kinds.inc"
#undef KIND

static const Command* const all_commands[] = {
#define KIND(name) &command_##name,
#include "command_kinds.inc"
#undef KIND
};
// CLI11's own messages name neither the program nor the command.
static std::string usage_message(const CLI::App* root, const CLI::Error& error) {
  std::string command = "retort";
  for (const CLI::App* app = root; !app->get_subcommands().empty();) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  return fmt::format("{}: {}\n{} --help shows what is allowed\n", command, error.what(), command);
}

// CLI11 would only say that a subcommand is required.
static void require_command(const std::string& name) {
  std::vector<std::string> names;
  for (const Command* command : all_commands) names.push_back(command->name);
  if (name.starts_with("-") || std::find(names.begin(), names.end(), name) != names.end()) return;
  const std::string near = did_you_mean(name, names);
  fail(Exit::usage, "there is no command \"{}\"; allowed: {}{}", name, fmt::join(names, ", "),
       near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

// A thread that waits for another spins by default for longer than a scheduler's slice, so beside other programs each
// of a step's thousand barriers costs a slice (docs/performance.md). libgomp reads this when it is loaded: start again
// with it.
static void wait_briefly(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "10000", 1);
  execv("/proc/self/exe", argv);  // where this fails, the program is only slower beside others
}

// The last of the output is written here, and only now does a full disk show.
static int finish_output(int code) {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return code;
  std::fprintf(stderr, "retort: cannot write to standard output: %s\n", std::strerror(errno));
  return static_cast<int>(Exit::io);
}

// Results go to stdout, everything else to stderr. On a terminal a log line first clears the progress bar.
static void set_up_log() {
  auto logger = std::make_shared<spdlog::logger>("retort", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->sinks().front()->set_level(spdlog::level::info);
  logger->set_level(spdlog::level::debug);
  logger->sinks().front()->set_pattern(isatty(STDERR_FILENO) ? "\r\x1b[K%H:%M:%S %v" : "%H:%M:%S %l %v");
  spdlog::set_default_logger(logger);
  spdlog::flush_on(spdlog::level::info);
}
}  // namespace retort

int main(int argc, char** argv) {
  using namespace retort;
  wait_briefly(argv);
  set_up_log();
  CLI::App app("Turn a large model's knowledge and your data into a small model that runs anywhere.", "retort");
  app.require_subcommand(1);
  app.set_version_flag("--version", version());
  app.failure_message(usage_message);
  app.footer("Documentation: docs/. Every subcommand's --help has an example.");
  int code = 0;
  for (const Command* command : all_commands) {
    CLI::App* sub = app.add_subcommand(command->name, command->summary);
    sub->footer(std::string("Examples:\n") + command->examples);
    sub->callback([run = command->setup(*sub), &code] { code = run(); });
  }
  try {
    if (argc < 2) {
      std::fputs(app.help().c_str(), stderr);
      return static_cast<int>(Exit::usage);
    }
    require_command(argv[1]);
    app.parse(argc, argv);
    return finish_output(code);
  } catch (const CLI::ParseError& error) {
    return finish_output(app.exit(error) == 0 ? 0 : static_cast<int>(Exit::usage));
  } catch (const Error& error) {
    std::fprintf(stderr, "retort: %s\n", error.what());
    return static_cast<int>(error.exit());
  } catch (const std::filesystem::filesystem_error& error) {
    // A disk that is full or read-only, where no better message was at hand.
    std::fprintf(stderr, "retort: %s: %s (%s)\n", error.path1().c_str(), error.code().message().c_str(), error.what());
    return static_cast<int>(Exit::io);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "retort: out of memory\n");
    return static_cast<int>(Exit::internal);
  } catch (const std::exception& error) {
    if (std::ferror(stdout)) {
      std::fprintf(stderr, "retort: cannot write to standard output: %s\n", error.what());
      return static_cast<int>(Exit::io);
    }
    std::fprintf(stderr, "retort: internal error: %s\n", error.what());
    return static_cast<int>(Exit::internal);
  }
}
