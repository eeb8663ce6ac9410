// train.fit as a shell sees it, on the real model.
#include <gtest/gtest.h>

#include "core/files.h"
#include "core/json.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct FitRun : testing::Test {
  TemporaryFolder folder;
  std::vector<std::string> command(const std::string& name, const std::string& memory) const {
    return {name,
            RETORT_SOURCE_DIR "/configs/quickstart.yaml",
            "output_dir=" + (folder / "runs").string(),
            "train.max_steps=3",
            "train.micro_batch_size=8",
            "data.max_length=160",
            "data.truncation=drop",
            "data.train.0.limit=24",
            "data.validation.0.limit=2",
            "export.files=[{format: peft}]",
            "evaluate=[]",
            "train.fit.memory=" + memory};
  }
};

TEST_F(FitRun, CheckSaysWhatIsChosenAndWhy) {
  std::vector<std::string> arguments = command("check", "1GB");
  const ProcessResult text = retort(arguments);
  ASSERT_EQ(text.status, 0) << text.errors;
  EXPECT_NE(text.output.find("fit          micro_batch_size "), std::string::npos) << text.output;
  EXPECT_NE(text.output.find("of 1.0 GB; the next faster way, micro_batch_size "), std::string::npos) << text.output;

  const ProcessResult small = retort(command("check", "100MB"));
  EXPECT_EQ(small.status, 64) << small.errors;
  EXPECT_NE(small.errors.find("train.fit.memory: 100 MB, but the smallest way, micro_batch_size 1"), std::string::npos)
      << small.errors;
}

TEST_F(FitRun, TrainsInThatMemoryAndGoesOnAsItBegan) {
  Running first(command("run", "900MB"), (folder / "log").string());
  fs::path run;
  ASSERT_TRUE(first.until([&] {
    for (std::error_code error; const auto& entry : fs::directory_iterator(folder / "runs/foldoc-categories", error))
      run = entry.path();
    return !run.empty() && fs::exists(run / "metrics.jsonl") && fs::file_size(run / "metrics.jsonl") > 0;
  })) << read_text(folder / "log");
  first.send(SIGTERM);
  ASSERT_EQ(first.wait(), 75) << read_text(folder / "log");
  const std::string chosen = read_text(run / "fit.json");
  const Json fit = read_json(run / "fit.json");
  EXPECT_EQ(fit["micro_batch_size"].get<int64_t>() * fit["gradient_accumulation_steps"].get<int64_t>(), 8);
  EXPECT_LT(fit["micro_batch_size"], 8);

  std::vector<std::string> go_on = command("run", "900MB");
  go_on.push_back("--resume");
  const ProcessResult rest = retort(go_on);
  ASSERT_EQ(rest.status, 0) << rest.errors;
  EXPECT_EQ(read_text(run / "fit.json"), chosen);
  const Json train = read_json(run / "report.json")["train"];
  EXPECT_EQ(train["steps"], 3);
  EXPECT_EQ(train["options"]["micro_batch_size"], fit["micro_batch_size"]);
  EXPECT_EQ(train["options"]["gradient_checkpointing"], fit["gradient_checkpointing"]);
  EXPECT_EQ(train["fit"], fit["reason"]);
  EXPECT_LT(train["peak_memory_bytes"].get<double>(), 900e6);
}

}  // namespace
}  // namespace retort
