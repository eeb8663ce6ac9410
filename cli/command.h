// One subcommand: a file in cli/commands/ that defines `extern const Command command_<name>`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace retort {

/// `setup` adds options to its CLI11 app and returns what runs when the subcommand was chosen; the int is the exit
/// code.
struct Command {
  const char* name;
  const char* summary;   ///< one line
  const char* examples;  ///< shown under --help: command lines that work
  std::function<int()> (*setup)(CLI::App& app);
};

}  // namespace retort
