// A run that is killed at any moment and goes on ends with the same bytes as one that was never stopped.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>

#include "core/error.h"
#include "core/signals.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

int variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : 0;
}

// The run that the child process trains: dropout, accumulation, ends of epochs, validation, checkpoints that do not
// fall together.
void train_in(const fs::path& folder, bool resume) {
  FakeModel model(at::kFloat, /*dropout=*/0.2);
  FakeData data(31), validation(7, 2);
  TrainOptions options;
  options.micro_batch_size = 3;
  options.gradient_accumulation_steps = 2;
  options.num_train_epochs = 4;
  options.learning_rate = 0.02;
  options.warmup_ratio = 0.1;
  options.logging_steps = 4;
  options.eval_steps = 4;
  options.save_steps = 3;
  const int signal = variable("RETORT_TEST_SIGNAL");
  const int kill_forward = variable("RETORT_TEST_KILL_FORWARD"), kill_save = variable("RETORT_TEST_KILL_SAVE");
  int forwards = 0, saves = 0;
  model.on_forward = [&](bool) {
    if (++forwards == kill_forward) raise(signal);
  };
  TrainRun run{.folder = folder, .seed = 11, .resume = resume};
  run.save_adapter = [&](const fs::path& path) {
    model.save(path);
    if (++saves == kill_save) kill(getpid(), SIGKILL);
  };
  train(model, model.parameters(), data, &validation, cross_entropy_objective(), options, run);
}

// Runs this program again as the child, which gets `signal` at the given forward or SIGKILL at the given save (0:
// never). The exit code, or -1 when it was killed.
int child(const fs::path& folder, bool resume, int kill_forward, int kill_save, int signal = SIGKILL) {
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("RETORT_TEST_FOLDER", folder.c_str(), 1);
    setenv("RETORT_TEST_RESUME", resume ? "1" : "0", 1);
    setenv("RETORT_TEST_KILL_FORWARD", std::to_string(kill_forward).c_str(), 1);
    setenv("RETORT_TEST_SIGNAL", std::to_string(signal).c_str(), 1);
    setenv("RETORT_TEST_KILL_SAVE", std::to_string(kill_save).c_str(), 1);
    execl("/proc/self/exe", "test_trainer", "--gtest_filter=ResumeChild.DISABLED_Train",
          "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    return -1;
  }
  return WEXITSTATUS(status);
}

std::string final_bytes(const fs::path& folder, const char* file) {
  return read_text(list_checkpoints(folder / "checkpoints").back().path / file);
}

}  // namespace

TEST(ResumeChild, DISABLED_Train) {
  const char* folder = std::getenv("RETORT_TEST_FOLDER");
  if (!folder) GTEST_SKIP() << "runs only as a child of the tests below";
  catch_stop_signals();
  try {
    train_in(folder, variable("RETORT_TEST_RESUME"));
  } catch (const Error& error) {
    std::_Exit(static_cast<int>(error.exit()));
  }
}

TEST(Resume, KilledAtRandomMomentsEndsBitEqual) {
  const auto whole = fresh_folder("resume-whole");
  train_in(whole, false);
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  SCOPED_TRACE(fmt::format("seed {}", seed));
  for (int trial = 0; trial < 3; ++trial) {
    const auto folder = fresh_folder(fmt::format("resume-{}", trial));
    int kills = 0;
    // The last trial is also killed while it writes checkpoints.
    int code = child(folder, false, 1 + int(random() % 40), trial == 2 ? 2 : 0);
    while (code < 0 && kills < 8) {
      ++kills;
      code = child(folder, true, kills < 4 ? 1 + int(random() % 40) : 0, trial == 2 && kills < 3 ? 1 : 0);
    }
    ASSERT_EQ(code, 0);
    EXPECT_GE(kills, 1);
    EXPECT_EQ(final_bytes(folder, "adapter/adapter_model.safetensors"),
              final_bytes(whole, "adapter/adapter_model.safetensors"));
    EXPECT_EQ(final_bytes(folder, "optimizer.safetensors"), final_bytes(whole, "optimizer.safetensors"));
    EXPECT_EQ(metrics_lines(folder), metrics_lines(whole));
    EXPECT_EQ(fs::file_size(folder / "tensorboard/events.out.tfevents.0.retort"),
              fs::file_size(whole / "tensorboard/events.out.tfevents.0.retort"));
  }
}

TEST(Resume, StopSignalsFinishTheStepWriteACheckpointAndExit75) {
  const auto whole = fresh_folder("signal-whole");
  train_in(whole, false);
  for (const int signal : {SIGTERM, SIGINT}) {
    const auto folder = fresh_folder(fmt::format("signal-{}", signal));
    // Forward 12 belongs to step 5, where no checkpoint is due but for the signal.
    EXPECT_EQ(child(folder, false, 12, 0, signal), static_cast<int>(Exit::retry));
    EXPECT_EQ(list_checkpoints(folder / "checkpoints").back().step, 5);
    EXPECT_EQ(child(folder, true, 0, 0), 0);
    EXPECT_EQ(final_bytes(folder, "adapter/adapter_model.safetensors"),
              final_bytes(whole, "adapter/adapter_model.safetensors"));
    EXPECT_EQ(metrics_lines(folder), metrics_lines(whole));
  }
}

}  // namespace retort
