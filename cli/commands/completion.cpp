// retort completion SHELL: a completion script that asks the program's own list of subcommands and options.
#include <fmt/core.h>

#include "cli/command.h"
#include "core/error.h"

namespace retort {
namespace {

// Both scripts are made from the live command tree, so a new subcommand or option needs nothing here.
std::string words_of(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) words += "--" + name + " ";
  if (!words.empty()) words.pop_back();
  return words;
}

std::string bash_script(const CLI::App& root) {
  std::string cases, commands;
  for (const CLI::App* sub : root.get_subcommands([](const CLI::App*) { return true; })) {
    commands += sub->get_name() + " ";
    cases += fmt::format("    {}) words=\"{}\" ;;\n", sub->get_name(), words_of(*sub));
  }
  return fmt::format(R"(# bash completion for retort: source <(retort completion bash)
_retort() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W "{}" -- "$current"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{}  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _retort retort ./retort
)",
                     commands, cases);
}

std::string zsh_script(const CLI::App& root) {
  std::string cases, commands;
  for (const CLI::App* sub : root.get_subcommands([](const CLI::App*) { return true; })) {
    std::string summary = sub->get_description();
    for (size_t at = 0; (at = summary.find('\'', at)) != std::string::npos; at += 4) summary.replace(at, 1, "'\\''");
    commands += fmt::format("    '{}:{}'\n", sub->get_name(), summary);
    cases += fmt::format("    {}) compadd -- {} ;;\n", sub->get_name(), words_of(*sub));
  }
  return fmt::format(R"(#compdef retort
# zsh completion for retort: retort completion zsh > a folder of $fpath, as _retort
local -a commands
commands=(
{})
if (( CURRENT == 2 )); then
  _describe command commands
elif [[ $words[CURRENT] == -* ]]; then
  case $words[2] in
{}  esac
else
  _files
fi
)",
                     commands, cases);
}

std::function<int()> setup(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  return [shell, &app] {
    const CLI::App& root = *app.get_parent();
    fmt::print("{}", *shell == "bash" ? bash_script(root) : zsh_script(root));
    return 0;
  };
}

}  // namespace

extern const Command command_completion{
    "completion", "Print a completion script for bash or zsh.",
    "  source <(retort completion bash)\n  retort completion zsh > ~/.zfunc/_retort\n", setup};

}  // namespace retort
