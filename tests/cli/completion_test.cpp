// The completion scripts, run by the shells that they are for.
#include <gtest/gtest.h>

#include <fstream>

#include "core/files.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// What a shell would offer for the last of `words`, one a line.
struct Shell {
  TemporaryFolder folder;
  std::string program, setup;

  explicit Shell(const std::string& name) : program(name) {
    const ProcessResult script = retort({"completion", name});
    EXPECT_EQ(script.status, 0) << script.errors;
    write_atomic(folder / "script", script.output);
    fs::create_directories(folder / "here/export");  // a folder named as a command
    write_atomic(folder / "here/my recipe.yaml", "");
  }
  std::string offers(const std::vector<std::string>& words) const {
    std::string list;
    for (const std::string& word : words) list += " '" + word + "'";
    const std::string script = (folder / "script").string();
    const std::string last = std::to_string(words.size() - 1);
    const std::string command =
        program == "bash"
            ? "compopt() { :; }; source " + script + "; COMP_WORDS=(" + list + "); COMP_CWORD=" + last +
                  "; _retort; printf '%s\n' \"${COMPREPLY[@]}\""
            // compadd and its friends need the line editor: their arguments, cut to what begins as the word does
            : "compadd() { shift; print -l -- ${(M)@:#$words[CURRENT]*} }; _describe() { compadd -- ${commands%%:*} }; "
              "_files() { compadd -- *(N) }; complete() { source " +
                  script + " }; words=(" + list + "); CURRENT=" + std::to_string(words.size()) + "; complete";
    const ProcessResult result =
        run_program({program, program == "bash" ? "--norc" : "-f", "-c", command}, folder / "here");
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_EQ(result.errors, "");
    return result.output;
  }
};

void expect_completes(const Shell& shell) {
  EXPECT_EQ(shell.offers({"retort", "ex"}), "export\n");
  EXPECT_EQ(shell.offers({"./retort", "ver"}), "version\n");
  const std::string commands = shell.offers({"retort", ""});
  for (const char* name : {"run\n", "check\n", "pull\n", "cache\n", "export\n", "eval\n", "logits\n", "generate\n",
                           "inspect\n", "schema\n", "version\n", "completion\n", "quantize\n"})
    EXPECT_NE(commands.find(name), std::string::npos) << commands;
  EXPECT_EQ(shell.offers({"retort", "run", "--res"}), "--resume\n");
  EXPECT_EQ(shell.offers({"retort", "run", "--resume", "my"}), "my recipe.yaml\n");
  EXPECT_EQ(shell.offers({"retort", "cache", "v"}), "verify\n");
  EXPECT_EQ(shell.offers({"retort", "cache", "prune", "--old"}), "--older-than\n");
  EXPECT_EQ(shell.offers({"retort", "completion", "z"}), "zsh\n");
  EXPECT_EQ(shell.offers({"retort", "eval", "--model", "m.gguf", "--kind", "p"}), "perplexity\n");
  EXPECT_EQ(shell.offers({"retort", "export", "--format", "gguf_"}), "gguf_adapter\n");
  EXPECT_EQ(shell.offers({"retort", "generate", "--model", "ex"}), "export\n") << "a folder, as a path";
  EXPECT_EQ(shell.offers({"retort", "--ver"}), "--version\n");
}

TEST(Completion, BashCompletesCommandsOptionsValuesAndFiles) {
  const Shell bash("bash");
  expect_completes(bash);
  EXPECT_EQ(
      run_program({"bash", "--norc", "-c", "source " + (bash.folder / "script").string() + "; complete -p retort"})
          .output,
      "complete -F _retort retort\n");
}

TEST(Completion, ZshCompletesCommandsOptionsValuesAndFiles) {
  if (!fs::exists("/usr/bin/zsh") && !fs::exists("/bin/zsh")) GTEST_SKIP() << "no zsh here";
  expect_completes(Shell("zsh"));
}

TEST(Completion, OtherShellsAreRefused) { EXPECT_EQ(retort({"completion", "fish"}).status, 64); }

}  // namespace
}  // namespace retort
