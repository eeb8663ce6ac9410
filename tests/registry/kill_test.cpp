// A promotion that is killed after each of its system calls, runs into a full disk, or has company.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <stdexcept>

#include "tests/registry/promote.h"

namespace retort {
namespace {
namespace fs = std::filesystem;

constexpr const char* kOld = "the old model";
const std::string kNew(20'000, 'n');

/// A registry whose champion is the old model, with a verdict still to come.
void make_registry(const fs::path& folder) {
  Registry registry(folder);
  const auto lease = registry.lease("m");
  promoted(registry, lease, "the first model");
  promoted(registry, lease, kOld);
}

/// Exit status of a child: 0, or the code of the Error.
[[noreturn]] void promote_and_exit(const fs::path& folder, const fs::path& file, const std::string& key) {
  try {
    Registry registry(folder);
    const auto lease = registry.lease("m");
    RegistryDecision decision{.kind = "promoted", .key = key};
    decision.verdict = {{"for", key}};
    registry.promote(lease, file, decision);
    _exit(0);
  } catch (const Error& error) {
    _exit(static_cast<int>(error.exit()));
  }
}

/// Runs the promotion under ptrace and kills it after system call `count`; false when it ended before.
bool killed_after(int count, const fs::path& folder, const fs::path& file) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(77);
    raise(SIGSTOP);
    promote_and_exit(folder, file, "k");
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) throw std::runtime_error("this machine lets no process be traced");
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
  // Two stops a call: at its entry and at its exit.
  for (int stops = 0; stops < 2 * count;) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    if (waitpid(child, &status, 0) != child) return false;
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
      return false;
    }
    stops += WSTOPSIG(status) == (SIGTRAP | 0x80);
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return true;
}

TEST(RegistryKilled, HasOneChampionAfterEachSystemCall) {
  const TemporaryFolder folder;
  make_registry(folder / "start");
  write_atomic(folder / "new.gguf", kNew);
  const std::string before = sha256_hex(kOld), after = sha256_hex(kNew);
  std::set<std::string> seen;
  int count = 1;
  for (bool killed = true; killed && !HasFailure(); ++count) {
    const fs::path registry = folder / "r";
    fs::remove_all(registry);
    fs::copy(folder / "start", registry, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    killed = killed_after(count, registry, folder / "new.gguf");
    const std::string champion = checked_champion(registry);
    EXPECT_TRUE(champion == before || champion == after) << "after system call " << count;
    EXPECT_TRUE(killed || champion == after);
    seen.insert(champion);
    // The verdict is kept with the promotion, both or neither.
    Registry again(registry);
    EXPECT_EQ(again.find_run("k").has_value(), champion == after) << "after system call " << count;
    EXPECT_EQ(again.alias("m", "previous")->sha256, champion == after ? before : sha256_hex("the first model"));
    // The dead process leaves nothing that stops the next, and gc takes what it left.
    if (count % 8 == 0) {
      const auto lease = again.lease("m");
      promoted(again, lease, "the next model");
      again.gc({}, false);
      EXPECT_EQ(again.gc({}, false).size(), 0u);
      checked_champion(registry);
    }
  }
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_GT(count, 50);
  RecordProperty("system_calls", count);
}

TEST(RegistryFull, KeepsTheOldChampionWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  make_registry(folder / "start");
  write_atomic(folder / "new.gguf", kNew);
  int failed = 0;
  // A file that may not grow stands for a disk that is full: the artifact's, then the log's.
  for (rlim_t limit = 0; limit <= 128 * 1024; limit += 4096) {
    const fs::path registry = folder / "r";
    fs::remove_all(registry);
    fs::copy(folder / "start", registry, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit bound{limit, limit};
      setrlimit(RLIMIT_FSIZE, &bound);
      promote_and_exit(registry, folder / "new.gguf", "k");
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status)) << limit << ": " << status;
    const std::string champion = checked_champion(registry);
    if (WEXITSTATUS(status) == 0) {
      EXPECT_EQ(champion, sha256_hex(kNew)) << limit;
    } else {
      ++failed;
      EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(Exit::io)) << limit;
      EXPECT_EQ(champion, sha256_hex(kOld)) << limit;
    }
  }
  EXPECT_GT(failed, 4);
  EXPECT_LT(failed, 32);
}

TEST(RegistryTogether, ProcessesPromoteInTurnWhileAnotherRemoves) {
  const TemporaryFolder folder;
  make_registry(folder / "r");
  constexpr int kProcesses = 3, kEach = 5;
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    children.push_back(fork());
    if (children.back() != 0) continue;
    for (int done = 0; done < kEach;) {
      try {
        Registry registry(folder / "r");
        const auto lease = registry.lease("m");
        promoted(registry, lease, std::to_string(process) + "-" + std::to_string(done));
        ++done;
      } catch (const Error& error) {
        if (error.exit() != Exit::retry) _exit(static_cast<int>(error.exit()));
        usleep(500);
      }
    }
    _exit(0);
  }
  const pid_t remover = fork();
  if (remover == 0) {
    try {
      Registry registry(folder / "r");
      for (;;) registry.gc({.last = 0, .days = 0, .now = 4'000'000'000}, false);
    } catch (const Error& error) {
      _exit(static_cast<int>(error.exit()));
    }
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << (WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }
  kill(remover, SIGKILL);
  int status = 0;
  waitpid(remover, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  checked_champion(folder / "r");
  const Registry registry(folder / "r");
  const auto decisions = registry.decisions("m");
  ASSERT_EQ(decisions.size(), 2u + kProcesses * kEach);
  for (size_t i = 0; i + 1 < decisions.size(); ++i) EXPECT_GT(decisions[i].fence, decisions[i + 1].fence - 1);
  EXPECT_EQ(sha256_file(registry.alias("m", "previous")->file), decisions[1].champion);
}

TEST(RegistryKeep, RemovesOnlyWhatNoAliasAndNoRuleNeeds) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  std::vector<std::string> hashes;
  for (const char* content : {"a", "b", "c", "d", "e"}) hashes.push_back(promoted(registry, lease, content));
  const int64_t later = 4'000'000'000;
  EXPECT_TRUE(registry.gc({.last = 0, .days = 30}, false).empty());
  EXPECT_EQ(registry.gc({.last = 3, .days = 30, .now = later}, true).size(), 2u);
  EXPECT_TRUE(fs::exists(registry.find("m", hashes[0]).file));
  const auto removed = registry.gc({.last = 3, .days = 30, .now = later}, false);
  ASSERT_EQ(removed.size(), 2u);
  EXPECT_TRUE(registry.find("m", hashes[0]).removed && registry.find("m", hashes[1]).removed);
  EXPECT_FALSE(fs::exists(registry.find("m", hashes[1]).file));
  EXPECT_TRUE(fs::exists(registry.find("m", hashes[2]).file));
  // Champion and previous stay whatever the rule is; the history stays too.
  EXPECT_EQ(registry.gc({.last = 0, .days = 0, .now = later}, false).size(), 1u);
  EXPECT_EQ(registry.decisions("m").size(), 5u);
  EXPECT_EQ(registry.alias("m", "previous")->sha256, hashes[3]);
  EXPECT_TRUE(fs::exists(registry.alias("m", "previous")->file));
  fs::create_directories(folder / "r" / "artifacts" / ".x.partial-1-0");
  EXPECT_EQ(registry.gc({}, false).size(), 1u);
  checked_champion(folder / "r");
}

}  // namespace
}  // namespace retort
