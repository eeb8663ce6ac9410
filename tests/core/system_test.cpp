// Random numbers, progress, signals, memory, processor, programs.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>

#include "core/cpu.h"
#include "core/files.h"
#include "core/memory.h"
#include "core/process.h"
#include "core/progress.h"
#include "core/rng.h"
#include "core/signals.h"
#include "tests/core/support.h"

namespace retort {
namespace {

TEST(Rng, IsSplitMix64) {
  // The first outputs of Vigna's splitmix64.c for seed 1234567, as other implementations list them.
  Rng rng(1234567);
  EXPECT_EQ(rng.next(), 6457827717110365317u);
  EXPECT_EQ(rng.next(), 3203168211198807973u);
  EXPECT_EQ(rng.next(), 9817491932198370423u);
  EXPECT_EQ(rng.next(), 4593380528125082431u);
  EXPECT_EQ(rng.next(), 16408922859458223821u);
}

TEST(Rng, StreamsDifferAndPositionsResume) {
  Rng a(7, 1), b(7, 2), c(7, 1);
  EXPECT_NE(a.next(), b.next());
  a.next();
  c.seek(a.position());
  EXPECT_EQ(a.next(), c.next());
}

TEST(Rng, BelowIsEvenAndShuffleIsAPermutation) {
  Rng rng(1);
  std::vector<int> counts(7);
  for (int i = 0; i < 70'000; ++i) ++counts[rng.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);  // 5 standard deviations
  for (int i = 0; i < 1000; ++i) {
    const double u = rng.uniform();
    EXPECT_TRUE(u >= 0 && u < 1);
  }
  std::vector<int64_t> values(100);
  std::iota(values.begin(), values.end(), 0);
  auto shuffled = values;
  rng.shuffle(std::span(shuffled));
  EXPECT_NE(shuffled, values);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, values);
}

TEST(Progress, RendersRateTimeLeftAndSuffix) {
  ProgressState s;
  s.task = "train";
  s.done = 130;
  s.total = 250;
  s.first = 30;
  s.seconds = 50;
  s.suffix = "loss 1.23";
  EXPECT_EQ(render_progress(s, 0, false), "train:  52 %  130/250  2/s  1:00 left  loss 1.23");
  const std::string bar = render_progress(s, 100, true);
  EXPECT_NE(bar.find("train ███"), std::string::npos) << bar;
  EXPECT_NE(bar.find("1:00 left  loss 1.23"), std::string::npos) << bar;
  EXPECT_EQ(render_progress(s, 20, true).size(), 20u) << "cut at the width";
  s = {};
  s.task = "model.gguf";
  s.done = 1'250'000;
  s.bytes = true;
  s.seconds = 10;
  EXPECT_EQ(render_progress(s, 0, false), "model.gguf:  1.2 MB  125 kB/s");
  s.total = 98'316'864;
  s.done = s.total;
  s.finished = true;
  s.seconds = 3725;
  EXPECT_EQ(render_progress(s, 0, false), "model.gguf: 100 %  98.3 MB/98.3 MB  26.4 kB/s  in 1:02:05");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(999'999), "1.0 MB");
}

TEST(Progress, WritesFewPlainLinesWithoutATerminal) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  {
    Progress progress(stream_progress(ends[1], 3600));
    progress.start("work", 1000);
    for (int i = 1; i <= 1000; ++i) progress.update(i, "x");
    progress.finish();
    progress.start("more", 2);
    progress.finish("done");
  }
  close(ends[1]);
  char buffer[4096];
  const ssize_t n = read(ends[0], buffer, sizeof buffer);
  close(ends[0]);
  const std::string text(buffer, n > 0 ? static_cast<size_t>(n) : 0);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_NE(text.find("work: 100 %  1000/1000"), std::string::npos) << text;
  EXPECT_NE(text.find("done\n"), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(Progress, SilentByDefault) {
  Progress progress;
  progress.start("a", 1);
  progress.update(1);
  progress.finish();
}

TEST(Signals, TheFirstSetsAFlagTheSecondEnds) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t child = fork();
    if (child == 0) {
      catch_stop_signals();
      if (stop_signal() != 0) _exit(1);
      raise(signal);
      if (stop_signal() != signal) _exit(2);
      raise(signal);
      _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
  }
}

TEST(Memory, PartsTellOwnPagesFromFilesAndPrograms) {
  constexpr uint64_t kBytes = uint64_t{48} << 20, kNoise = uint64_t{4} << 20;
  const std::string path = testing::TempDir() + "mapped";
  std::ofstream(path) << std::string(kBytes, 'x');
  const ResidentParts before = resident_parts();
  EXPECT_GT(before.programs, uint64_t{1} << 20);

  void* own = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(own, MAP_FAILED);
  std::memset(own, 1, kBytes);
  const ResidentParts with_own = resident_parts();
  EXPECT_NEAR(double(with_own.own - before.own), kBytes, kNoise);
  EXPECT_NEAR(double(with_own.files), double(before.files), kNoise);

  const int file = open(path.c_str(), O_RDONLY);
  const void* mapped = mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE, file, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  EXPECT_NEAR(double(resident_parts().files), double(before.files), kNoise) << "pages count once they are read";
  uint64_t sum = 0;
  for (uint64_t i = 0; i < kBytes; i += 4096) sum += static_cast<const unsigned char*>(mapped)[i];
  EXPECT_EQ(sum, kBytes / 4096 * 'x');
  const ResidentParts with_file = resident_parts();
  EXPECT_NEAR(double(with_file.files - before.files), kBytes, kNoise);
  EXPECT_NEAR(double(with_file.own), double(with_own.own), kNoise);
  EXPECT_NEAR(double(with_file.own + with_file.files + with_file.programs), double(resident_bytes()), kNoise);

  munmap(own, kBytes);
  munmap(const_cast<void*>(mapped), kBytes);
  close(file);
  unlink(path.c_str());
}

TEST(Memory, PeakRemembersAndResets) {
  constexpr size_t kSize = 200 << 20;
  const uint64_t before = resident_bytes();
  void* block = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  std::memset(block, 1, kSize);
  EXPECT_GE(resident_bytes(), before + kSize / 10 * 9);
  munmap(block, kSize);
  EXPECT_LT(resident_bytes(), before + kSize / 2);
  EXPECT_GE(peak_resident_bytes(), before + kSize / 10 * 9);
  reset_peak_resident_bytes();
  EXPECT_LT(peak_resident_bytes(), before + kSize / 2);
  EXPECT_GT(available_memory_bytes(), uint64_t{1} << 20);
  EXPECT_LT(available_memory_bytes(), static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE));
}

TEST(Cpu, AgreesWithTheCompiler) {
  EXPECT_GE(cpu().threads, 1);
  EXPECT_FALSE(cpu().model.empty());
#ifdef __x86_64__
  EXPECT_EQ(cpu().avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(cpu().avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(cpu().avx512_bf16, __builtin_cpu_supports("avx512bf16") != 0);
#endif
}

TEST(Process, CapturesOutputsAndStatus) {
  const ProcessResult result = run_program({"sh", "-c", "echo out; echo err >&2; pwd; exit 3"}, "/");
  EXPECT_EQ(result.status, 3);
  EXPECT_EQ(result.output, "out\n/\n");
  EXPECT_EQ(result.errors, "err\n");
  EXPECT_EQ(run_program({"sh", "-c", "kill -9 $$"}).status, 128 + 9);
  expect_error(Exit::unavailable, {"retort-no-such-program", "No such file"},
               [] { run_program({"retort-no-such-program"}); });
}

TEST(Process, ArgumentsReachTheProgramAsTheyAre) {
  EXPECT_EQ(run_program({"printf", "%s|", "a b", "$HOME", "; rm", ""}).output, "a b|$HOME|; rm||");
  EXPECT_EQ(run_program({"cat"}).output, "") << "standard input is empty";
}

TEST(Process, MuchOutputOnBothSidesDoesNotBlock) {
  const ProcessResult result =
      run_program({"sh", "-c", "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; echo end"});
  EXPECT_EQ(result.status, 0);
  EXPECT_TRUE(result.output.ends_with("end\n"));
  EXPECT_LT(result.output.size(), 3u << 20);
  TemporaryFolder folder;
  run_program({"echo", "x"}, {}, {.output_file = folder / "out"});
  EXPECT_EQ(read_text(folder / "out"), "x\n");
}

TEST(Process, ReadsAFile) {
  TemporaryFolder folder;
  write_atomic(folder / "in", "hello");
  EXPECT_EQ(run_program({"cat"}, "/", {.input_file = folder / "in"}).output, "hello");
}

TEST(Process, IsKilledWithItsChildrenWhenItTakesTooLong) {
  TemporaryFolder folder;
  const ProcessResult result =
      run_program({"sh", "-c", "echo begun; (sleep 600; touch late) & sleep 600"}, folder.path(), {.seconds = 0.3});
  EXPECT_EQ(result.status, 128 + 9);
  EXPECT_EQ(result.output, "begun\n");
  EXPECT_EQ(run_program({"echo", "in time"}, {}, {.seconds = 600}).output, "in time\n");
}

}  // namespace
}  // namespace retort
