#include "core/files.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "core/hash.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// Runs `what` in a child; its exit code.
template <typename F>
int in_child(F&& what) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      what();
    } catch (const Error& error) {
      _exit(static_cast<int>(error.exit()));
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

size_t files_in(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(MappedFile, ShowsTheBytesAndRefusesOtherThings) {
  TemporaryFolder folder;
  std::ofstream(folder / "a") << "hello";
  std::ofstream(folder / "empty");
  const auto file = MappedFile::open(folder / "a");
  EXPECT_EQ(std::string(file->bytes().begin(), file->bytes().end()), "hello");
  EXPECT_TRUE(MappedFile::open(folder / "empty")->bytes().empty());
  expect_error(Exit::io, {"missing", "No such file"}, [&] { MappedFile::open(folder / "missing"); });
  expect_error(Exit::io, {"not a regular file"}, [&] { MappedFile::open(folder.path()); });
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(Exit::io, {"not a regular file"}, [&] { MappedFile::open(folder / "pipe"); });
}

TEST(ReadText, ObeysTheLimit) {
  TemporaryFolder folder;
  std::ofstream(folder / "a") << std::string(100'000, 'x');
  EXPECT_EQ(read_text(folder / "a").size(), 100'000u);
  EXPECT_EQ(read_text(folder / "a", 100'000).size(), 100'000u);
  expect_error(Exit::bad_input, {"larger than the 99999 bytes"}, [&] { read_text(folder / "a", 99'999); });
  expect_error(Exit::io, {"is a folder"}, [&] { read_text(folder.path()); });
  EXPECT_FALSE(read_text("/proc/self/status").empty()) << "a file whose size the system calls 0";
  expect_error(Exit::bad_input, {"larger"}, [&] { read_text("/dev/zero", 1 << 20); });
}

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  TemporaryFolder folder;
  const fs::path path = folder / "new/sub/file.txt";
  {
    AtomicFile file(path);
    file.write("half");
    EXPECT_EQ(file.position(), 4u);
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_EQ(files_in(path.parent_path()), 0u) << "the temporary is removed";
  write_atomic(path, "first");
  {
    AtomicFile file(path);
    file.write("second");
    EXPECT_EQ(read_text(path), "first");
    file.commit();
  }
  EXPECT_EQ(read_text(path), "second");
  EXPECT_EQ(files_in(path.parent_path()), 1u);
}

TEST(AtomicFile, LibrariesMayWriteTheTemporaryByItsPath) {
  TemporaryFolder folder;
  AtomicFile file(folder / "a");
  fs::remove(file.temporary());
  std::ofstream(file.temporary()) << "from elsewhere";
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "from elsewhere");
}

TEST(AtomicFile, AKilledWriterLeavesTheOldFile) {
  TemporaryFolder folder;
  write_atomic(folder / "a", "old");
  EXPECT_EQ(in_child([&] {
              AtomicFile file(folder / "a");
              file.write(std::string(1 << 20, 'n'));
              raise(SIGKILL);
            }),
            128 + SIGKILL);
  EXPECT_EQ(read_text(folder / "a"), "old");
  ASSERT_EQ(files_in(folder.path()), 2u) << "what the killed process left";
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    if (entry.path().filename() != "a") {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(25));
    }
  }
  write_atomic(folder / "a", "new");
  EXPECT_EQ(files_in(folder.path()), 1u) << "a day later it is swept";
  EXPECT_EQ(read_text(folder / "a"), "new");
}

TEST(AtomicFile, AFullDiskIsAnErrorAndKeepsTheOldFile) {
  TemporaryFolder folder;
  write_atomic(folder / "a", "old");
  EXPECT_EQ(in_child([&] {
              signal(SIGXFSZ, SIG_IGN);
              rlimit limit{100'000, 100'000};
              setrlimit(RLIMIT_FSIZE, &limit);
              AtomicFile file(folder / "a");
              file.write(std::string(200'000, 'x'));
              file.commit();
            }),
            static_cast<int>(Exit::io));
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, UnwritablePlacesAreErrors) {
  TemporaryFolder folder;
  expect_error(Exit::io, {"/proc/nowhere"}, [] { AtomicFile("/proc/nowhere/file"); });
  fs::create_directories(folder / "a");
  expect_error(Exit::io, {"is a folder"}, [&] { AtomicFile file(folder / "a"); });
  std::ofstream(folder / "f");
  expect_error(Exit::io, {"cannot create the folder"}, [&] { AtomicFile file(folder / "f/under"); });
}

TEST(AtomicFolder, ReplacesAWholeFolderAtOnce) {
  TemporaryFolder folder;
  for (const char* text : {"first", "second"}) {
    AtomicFolder made(folder / "out");
    fs::create_directories(made.temporary() / "sub");
    std::ofstream(made.temporary() / "sub/a") << text;
    if (text == std::string("second")) std::ofstream(made.temporary() / "b") << "only here";
    made.commit();
  }
  EXPECT_EQ(read_text(folder / "out/sub/a"), "second");
  EXPECT_TRUE(fs::exists(folder / "out/b"));
  EXPECT_EQ(files_in(folder.path()), 1u);
  { AtomicFolder dropped(folder / "out"); }
  EXPECT_EQ(read_text(folder / "out/sub/a"), "second");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(FileLock, HoldsBetweenProcesses) {
  TemporaryFolder folder;
  const fs::path path = folder / "locks/a";
  {
    FileLock lock(path);
    EXPECT_EQ(in_child([&] { FileLock other(path, false); }), static_cast<int>(Exit::retry));
    expect_error(Exit::retry, {"another process holds"}, [&] { FileLock other(path, false); });
  }
  EXPECT_EQ(in_child([&] { FileLock other(path, false); }), 0);
}

TEST(FileLock, WaitsAndIsReleasedByAKill) {
  TemporaryFolder folder;
  const fs::path path = folder / "a";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    FileLock lock(path);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  expect_error(Exit::retry, {}, [&] { FileLock lock(path, false); });
  kill(child, SIGKILL);
  FileLock lock(path);  // returns once the kernel has cleaned up
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
}

TEST(CacheFolder, FollowsTheVariables) {
  TemporaryFolder folder;
  setenv("RETORT_CACHE", (folder / "a").c_str(), 1);
  setenv("XDG_CACHE_HOME", (folder / "x").c_str(), 1);
  EXPECT_EQ(cache_folder(), folder / "a");
  EXPECT_TRUE(fs::is_directory(folder / "a"));
  unsetenv("RETORT_CACHE");
  EXPECT_EQ(cache_folder(), folder / "x/retort");
  unsetenv("XDG_CACHE_HOME");
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  setenv("HOME", folder.path().c_str(), 1);
  EXPECT_EQ(cache_folder(), folder / ".cache/retort");
  if (!home.empty()) setenv("HOME", home.c_str(), 1);
}

TEST(Hash, AgreesWithTheStandards) {
  // FIPS 180-2's example and the empty text; XXH3's own test vector of the empty text.
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(xxh3(""), 0x2d06800538d394c2u);
  TemporaryFolder folder;
  std::ofstream(folder / "a") << "abc";
  EXPECT_EQ(sha256_file(folder / "a"), sha256_hex("abc"));
  Sha256 first;
  first.update("a");
  Sha256 moved = std::move(first);
  moved.update("bc");
  EXPECT_EQ(moved.hex(), sha256_hex("abc"));
}

TEST(Hash, HmacIsThatOfRfc4231) {
  auto hex = [](const std::string& bytes) {
    std::string text;
    for (unsigned char c : bytes) text += fmt::format("{:02x}", c);
    return text;
  };
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

}  // namespace
}  // namespace retort
