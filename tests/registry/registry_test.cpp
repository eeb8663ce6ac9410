// What the registry keeps: aliases, verdicts by key, evaluations, leases; and what it refuses.
#include "registry/registry.h"

#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "registry/tables.h"
#include "tests/registry/promote.h"

namespace retort {
namespace {
namespace fs = std::filesystem;

Exit exit_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message) *message = error.what();
    return error.exit();
  }
  return Exit::done;
}

TEST(Registry, PromotesAndGoesBack) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  const std::string a = promoted(registry, lease, "a"), b = promoted(registry, lease, "b");
  EXPECT_EQ(registry.alias("m", "champion")->sha256, b);
  EXPECT_EQ(registry.alias("m", "previous")->sha256, a);
  EXPECT_EQ(champion_of(folder / "r"), b);
  const ModelVersion back = registry.roll_back(lease, {.kind = ""});
  EXPECT_EQ(back.sha256, a);
  EXPECT_EQ(champion_of(folder / "r"), a);
  EXPECT_FALSE(registry.alias("m", "previous"));
  EXPECT_EQ(exit_of([&] { registry.roll_back(lease, {.kind = ""}); }), Exit::usage);
  const auto decisions = registry.decisions("m");
  ASSERT_EQ(decisions.size(), 3u);
  EXPECT_EQ(decisions[0].kind, "rolled_back");
  EXPECT_EQ(decisions[0].champion, a);
}

TEST(Registry, KeepsTheVerdictOfARunOnce) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  registry.begin_run(lease, "k1", "2026-W01");
  EXPECT_FALSE(registry.find_run("k1"));
  RegistryDecision decision{.kind = "promoted", .key = "k1", .slot = "2026-W01", .at = 1'700'000'000};
  decision.verdict = {{"accuracy", 0.75}};
  decision.evaluations =
      Json::array({{{"kind", "choice_accuracy"}, {"on", "challenger"}, {"value", 0.75}, {"n", 200}}});
  write_atomic(folder / "a.gguf", "a");
  const ModelVersion version = registry.promote(lease, folder / "a.gguf", decision, {{"license", "mit"}});
  EXPECT_EQ(*registry.find_run("k1"), decision.verdict);
  EXPECT_EQ(version.verdict, decision.verdict);
  EXPECT_EQ(version.info["license"], "mit");
  EXPECT_EQ(registry.evaluations("m", version.sha256)[0]["value"], 0.75);
  // A second verdict is refused, and nothing of it stays.
  write_atomic(folder / "b.gguf", "b");
  EXPECT_EQ(exit_of([&] { registry.promote(lease, folder / "b.gguf", decision); }), Exit::usage);
  EXPECT_EQ(registry.alias("m", "champion")->sha256, version.sha256);
  EXPECT_EQ(registry.decisions("m").size(), 1u);
}

TEST(Registry, AStaleLeaseWritesNothing) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto first = registry.lease("m");
  std::string message;
  EXPECT_EQ(exit_of([&] { registry.lease("m"); }, &message), Exit::retry);
  EXPECT_NE(message.find(std::to_string(getpid())), std::string::npos) << message;
  std::filesystem::remove(folder / "r" / "locks" / "m.lease");
  const auto second = registry.lease("m");
  EXPECT_GT(second.fence(), first.fence());
  EXPECT_EQ(exit_of([&] { promoted(registry, first, "a"); }), Exit::retry);
  EXPECT_FALSE(registry.alias("m", "champion"));
  promoted(registry, second, "b");
}

TEST(Registry, ADriftStateIsKeptOncePerSlot) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  const std::string a = promoted(registry, lease, "a");
  EXPECT_TRUE(registry.drift_state("m", a).is_null());
  EXPECT_EQ(registry.keep_drift_state(lease, a, "2026-W01", {{"e", 1}}), Json({{"e", 1}}));
  EXPECT_EQ(registry.keep_drift_state(lease, a, "2026-W01", {{"e", 2}}), Json({{"e", 1}}));
  registry.keep_drift_state(lease, a, "2026-W02", {{"e", 3}});
  EXPECT_EQ(registry.drift_state("m", a), Json({{"e", 3}}));
}

TEST(Registry, AMissingOrWrongLinkIsRepaired) {
  const TemporaryFolder folder;
  std::string a;
  {
    Registry registry(folder / "r");
    const auto lease = registry.lease("m");
    a = promoted(registry, lease, "a");
  }
  const auto link = folder / "r" / "models" / "m" / "champion";
  std::filesystem::remove(link);
  { const Registry registry(folder / "r"); }
  EXPECT_EQ(champion_of(folder / "r"), a);
  std::filesystem::remove(link);
  std::filesystem::create_symlink("../../artifacts/nowhere", link);
  { const Registry registry(folder / "r"); }
  EXPECT_EQ(champion_of(folder / "r"), a);
}

TEST(Registry, DoesNotGoBackToADamagedFile) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  promoted(registry, lease, "a");
  const std::string b = promoted(registry, lease, "b");
  const auto file = registry.alias("m", "previous")->file;
  std::filesystem::permissions(file, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
  std::ofstream(file) << "x";
  EXPECT_EQ(exit_of([&] { registry.roll_back(lease, {.kind = ""}); }), Exit::bad_input);
  EXPECT_EQ(champion_of(folder / "r"), b);
  // The file itself mends it.
  promoted(registry, lease, "a");
  EXPECT_EQ(read_text(file), "a");
}

TEST(Registry, RefusesWhatIsDamagedNewerOrNoRegistry) {
  const TemporaryFolder folder;
  std::string message;
  const auto refused = [&](const char* name) { return exit_of([&] { Registry(folder / name); }, &message); };
  EXPECT_EQ(exit_of([&] { Registry(folder / "none", Registry::Access::read); }), Exit::io);
  {
    Registry registry(folder / "r");
    const auto lease = registry.lease("m");
    for (int i = 0; i < 40; ++i) promoted(registry, lease, std::to_string(i));
  }
  const std::string good = read_text(folder / "r" / "registry.sqlite");
  for (const size_t at : {size_t{0}, size_t{100}, good.size() / 2}) {
    std::string bad = good;
    for (size_t i = at; i < at + 4096 && i < bad.size(); ++i) bad[i] = '\x5a';
    write_atomic(folder / "bad" / "registry.sqlite", bad);
    EXPECT_EQ(refused("bad"), Exit::bad_input) << at;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  write_atomic(folder / "bad" / "registry.sqlite", good.substr(0, good.size() / 2));
  EXPECT_EQ(refused("bad"), Exit::bad_input);
  Database(folder / "r" / "registry.sqlite", false).script("PRAGMA user_version = 99");
  EXPECT_EQ(refused("r"), Exit::bad_input);
  EXPECT_NE(message.find("99"), std::string::npos) << message;
  EXPECT_NE(message.find(std::to_string(kTablesVersion)), std::string::npos) << message;
  std::filesystem::create_directory(folder / "other");
  Database(folder / "other" / "registry.sqlite", false).script("CREATE TABLE t(x)");
  EXPECT_EQ(refused("other"), Exit::bad_input);
}

TEST(Registry, TheDatabaseIsKeptAsItShouldBe) {
  const TemporaryFolder folder;
  { const Registry registry(folder / "r"); }
  const Database database(folder / "r" / "registry.sqlite", false);
  const auto pragma = [&](const char* name) {
    Statement statement(database, fmt::format("PRAGMA {}", name));
    return statement.step() ? statement.text(0) : "";
  };
  EXPECT_EQ(pragma("journal_mode"), "wal");
  EXPECT_EQ(pragma("foreign_keys"), "1");
  // And they hold.
  EXPECT_THROW(database.run("INSERT INTO aliases VALUES('nobody', 'champion', 'nothing')"), Error);
}

TEST(Registry, OnlyWhatWasDecidedUponIsPromoted) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  const std::string a = promoted(registry, lease, "a");
  write_atomic(folder / "b.gguf", "b");
  RegistryDecision decision{.kind = "promoted"};
  decision.challenger = sha256_hex("c");
  EXPECT_EQ(exit_of([&] { registry.promote(lease, folder / "b.gguf", decision); }), Exit::bad_input);
  EXPECT_EQ(champion_of(folder / "r"), a);
  decision.challenger = sha256_hex("b");
  EXPECT_EQ(registry.promote(lease, folder / "b.gguf", decision).sha256, decision.challenger);
}

TEST(Registry, AChallengerWaitsUntilAnotherIsPromoted) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  const auto lease = registry.lease("m");
  promoted(registry, lease, "a");
  promoted(registry, lease, "b");
  write_atomic(folder / "c.gguf", "c");
  const std::string c = registry.challenge(lease, folder / "c.gguf").sha256;
  registry.roll_back(lease, {.kind = ""});
  EXPECT_EQ(registry.alias("m", "challenger")->sha256, c);
  promoted(registry, lease, "d");
  EXPECT_FALSE(registry.alias("m", "challenger"));
  const auto removed = registry.gc({.last = 0, .days = 0, .now = 4'000'000'000}, false);
  EXPECT_TRUE(std::any_of(removed.begin(), removed.end(), [&](const auto& gone) { return gone.sha256 == c; }));
}

TEST(Registry, RefusesNetworkFileSystems) {
  for (const int64_t type : {int64_t{NFS_SUPER_MAGIC}, int64_t{CIFS_SUPER_MAGIC}, int64_t{SMB2_SUPER_MAGIC},
                             int64_t{V9FS_MAGIC}, int64_t{FUSE_SUPER_MAGIC}})
    EXPECT_NE(network_file_system(type), nullptr) << type;
  for (const int64_t type : {int64_t{EXT4_SUPER_MAGIC}, int64_t{TMPFS_MAGIC}, int64_t{XFS_SUPER_MAGIC}})
    EXPECT_EQ(network_file_system(type), nullptr) << type;
}

TEST(Registry, ReadsAFolderThatItMayNotWrite) {
  if (geteuid() != 0) GTEST_SKIP() << "needs to become another user";
  const TemporaryFolder folder;
  std::string a;
  {
    Registry registry(folder / "r");
    const auto lease = registry.lease("m");
    a = promoted(registry, lease, "a");
  }
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  const pid_t child = fork();
  if (child == 0) {
    if (setuid(65534) != 0) _exit(9);
    if (exit_of([&] { Registry(folder / "r"); }) != Exit::io) _exit(1);
    const Registry registry(folder / "r", Registry::Access::read);
    _exit(registry.alias("m", "champion")->sha256 == a ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Registry, AnyUserPromotesWhereFilesCannotShareBlocks) {
  for (const fs::path& base : {fs::temp_directory_path(), fs::path("/dev/shm")}) {
    if (!fs::exists(base)) continue;
    const fs::path folder = base / fmt::format("retort-user-{}", getpid());
    fs::create_directory(folder);
    fs::permissions(folder, fs::perms::all);
    const pid_t child = fork();
    if (child == 0) {
      // Root may write to files of any mode, others may not.
      if (geteuid() == 0 && setuid(65534) != 0) _exit(9);
      std::string message, a;
      const Exit exit = exit_of(
          [&] {
            Registry registry(folder / "r");
            const auto lease = registry.lease("m");
            write_atomic(folder / "model.gguf", "a");
            a = registry.promote(lease, folder / "model.gguf", {.kind = "promoted"}).sha256;
          },
          &message);
      if (exit != Exit::done) std::fprintf(stderr, "%s\n", message.c_str());
      _exit(exit == Exit::done && a == sha256_hex("a") && champion_of(folder / "r") == a ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << base;
    if (status == 0) {
      EXPECT_EQ(fs::status(folder / "r/models/m/champion").permissions(), fs::perms(0444)) << "nobody changes it";
    }
    fs::remove_all(folder);
  }
}

TEST(Registry, NamesOfModelsStayInTheirFolder) {
  const TemporaryFolder folder;
  Registry registry(folder / "r");
  for (const char* name : {"", "..", "a/b", ".hidden", "a b"})
    EXPECT_EQ(exit_of([&] { registry.lease(name); }), Exit::usage) << name;
}

}  // namespace
}  // namespace retort
