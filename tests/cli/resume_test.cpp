// A run that was killed goes on and ends as if nothing had happened.
#include <gtest/gtest.h>

#include <fstream>

#include "core/files.h"
#include "core/json.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

TEST(Resume, KilledInTrainingAndStoppedBeforeTheExportARunEndsAsOneThatNeverStopped) {
  const TemporaryFolder folder;
  const fs::path runs = folder / "runs/foldoc-categories";
  const std::vector<std::string> command = {"run",
                                            RETORT_SOURCE_DIR "/configs/quickstart.yaml",
                                            "output_dir=" + (folder / "runs").string(),
                                            "train.max_steps=3",
                                            "train.save_steps=1",
                                            "train.eval_steps=2",
                                            "data.max_length=128",
                                            "data.truncation=drop",
                                            "data.train.0.limit=16",
                                            "data.validation.0.limit=3",
                                            "adapter.lora_dropout=0.1",
                                            "export.files=[{format: peft}]",
                                            "evaluate=[{kind: perplexity, limit: 2}]"};
  std::vector<std::string> go_on = command;
  go_on.push_back("--resume");
  const ProcessResult whole = retort(command);
  ASSERT_EQ(whole.status, 0) << whole.errors;
  const fs::path reference = fs::canonical(runs / "latest");
  const Json expected = read_json(reference / "report.json");

  Running killed(command, folder / "killed.log");
  fs::path run;
  ASSERT_TRUE(killed.until([&] {
    for (const auto& entry : fs::directory_iterator(runs))
      if (!entry.is_symlink() && entry.path() != reference) run = entry.path();
    return !run.empty() && fs::exists(run / "checkpoints/step-000001");
  })) << read_text(folder / "killed.log");
  killed.send(SIGKILL);
  EXPECT_EQ(killed.wait(), 128 + SIGKILL);
  EXPECT_FALSE(fs::exists(run / "adapter"));
  // The base's figures are kept: these are found again at the end.
  Json base = read_json(run / "base.json");
  EXPECT_EQ(base["evaluate"][0]["value"], expected["evaluate"][0]["value"]);
  base["evaluate"][0]["value"] = 12345.0;
  write_json(run / "base.json", base);

  Running stopped(go_on, folder / "stopped.log");
  ASSERT_TRUE(stopped.until([&] { return fs::exists(run / "checkpoints/step-000003"); }))
      << read_text(folder / "stopped.log");
  stopped.send(SIGTERM);
  EXPECT_EQ(stopped.wait(), 75) << read_text(folder / "stopped.log");
  EXPECT_FALSE(fs::exists(run / "report.json"));

  const ProcessResult resumed = retort(go_on);
  ASSERT_EQ(resumed.status, 0) << resumed.errors;
  EXPECT_EQ(fs::canonical(runs / "latest"), run);
  EXPECT_EQ(read_text(run / "adapter/adapter_model.safetensors"),
            read_text(reference / "adapter/adapter_model.safetensors"));
  EXPECT_EQ(read_text(run / "adapter/adapter_config.json"), read_text(reference / "adapter/adapter_config.json"));

  const Json report = read_json(run / "report.json");
  EXPECT_EQ(report["evaluate"][0]["on"], "base");
  EXPECT_EQ(report["evaluate"][0]["value"], 12345.0);
  EXPECT_EQ(report["evaluate"][1]["value"], expected["evaluate"][1]["value"]);
  for (const char* key :
       {"steps", "tokens", "trained_tokens", "loss_first", "loss_last", "validation_loss", "best_step"})
    EXPECT_EQ(report["train"][key], expected["train"][key]) << key;
  EXPECT_EQ(report["train"]["curve"], expected["train"]["curve"]);
  EXPECT_EQ(report["samples"], expected["samples"]);
  EXPECT_EQ(report["data"], expected["data"]);
  for (const auto& [key, value] : expected.items()) EXPECT_TRUE(report.contains(key)) << key;
  // What was done before the interruptions counts.
  EXPECT_GT(report["seconds"]["train"].get<double>(), 0.5 * expected["seconds"]["train"].get<double>());
  EXPECT_GT(report["train"]["peak_memory_bytes"].get<double>(),
            0.8 * expected["train"]["peak_memory_bytes"].get<double>());
}

}  // namespace
}  // namespace retort
