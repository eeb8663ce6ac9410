// retort completion SHELL: a completion script made from the live command tree, so that a new subcommand or option
// needs nothing here.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "cli/command.h"

namespace retort {
namespace {

std::vector<const CLI::App*> subcommands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

/// The values that an option takes, where they are a set: CLI11 shows it as "TEXT:{a,b}".
std::string choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t begin = type.find('{'), end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return "";
  std::string choices = type.substr(begin + 1, end - begin - 1);
  std::replace(choices.begin(), choices.end(), ',', ' ');
  return choices;
}

/// Cases of a shell's `case` over the words before the one to complete; they set `names` and `options`.
std::string cases_of(const CLI::App& app, const std::string& path) {
  std::string cases, names;
  std::vector<std::string> options;
  for (const CLI::Option* option : app.get_options()) {
    const std::string choices = choices_of(*option);
    if (option->get_positional()) names += choices;
    for (const std::string& name : option->get_lnames()) {
      options.push_back("--" + name);
      if (!choices.empty()) cases += fmt::format("    \"{}\"*\" --{}\") names=\"{}\" ;;\n", path, name, choices);
    }
  }
  for (const CLI::App* sub : subcommands_of(app)) {
    cases += cases_of(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name());
    names += (names.empty() ? "" : " ") + sub->get_name();
  }
  const std::string words = fmt::format("options=\"{}\"", fmt::join(options, " "));
  if (!names.empty()) cases += fmt::format("    \"{}\") names=\"{}\" {} ;;\n", path, names, words);
  if (!path.empty()) cases += fmt::format("    \"{}\"*) {} ;;\n", path, words);
  return cases;
}

// Files are completed as files only where nothing else fits: a folder named export is not the command.
std::string bash_script(const CLI::App& root) {
  return fmt::format(R"(# bash completion for retort: source <(retort completion bash)
_retort() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before="${{COMP_WORDS[*]:1:COMP_CWORD-1}}" names="" options=""
  case $before in
{}  esac
  [[ $current == -* ]] && names=$options
  if [[ -n $names ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current")
  else
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}}
complete -F _retort retort ./retort
)",
                     cases_of(root, ""));
}

std::string zsh_script(const CLI::App& root) {
  std::string commands;
  for (const CLI::App* sub : subcommands_of(root)) {
    std::string summary = sub->get_description();
    for (size_t at = 0; (at = summary.find('\'', at)) != std::string::npos; at += 4) summary.replace(at, 1, "'\\''");
    commands += fmt::format("    '{}:{}'\n", sub->get_name(), summary);
  }
  return fmt::format(R"(#compdef retort
# zsh completion for retort: retort completion zsh > a folder of $fpath, as _retort
local before="${{(j: :)words[2,CURRENT-1]}}" names="" options=""
local -a commands
commands=(
{})
case $before in
{}esac
if [[ $words[CURRENT] == -* ]]; then
  compadd -- ${{=options}}
elif [[ -z $before ]]; then
  _describe command commands
elif [[ -n $names ]]; then
  compadd -- ${{=names}}
else
  _files
fi
)",
                     commands, cases_of(root, ""));
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
