// retort inspect, as a shell sees it.
#include "core/files.h"
#include "core/json.h"
#include "core/process.h"
#include "data/hdf5.h"
#include "tests/core/support.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

const std::filesystem::path golden = RETORT_GOLDEN;

ProcessResult inspect(const std::filesystem::path& path, const std::vector<std::string>& options = {}) {
  std::vector<std::string> arguments = {RETORT_PROGRAM, "inspect", path.string()};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return run_program(arguments);
}

Json inspect_json(const std::filesystem::path& path, const std::vector<std::string>& options = {"--json"}) {
  const ProcessResult result = inspect(path, options);
  EXPECT_EQ(result.status, 0) << result.errors;
  return parse_json(result.output, "inspect");
}

void expect_shown(const ProcessResult& result, const std::vector<std::string>& parts) {
  EXPECT_EQ(result.status, 0) << result.errors;
  for (const std::string& part : parts)
    EXPECT_NE(result.output.find(part), std::string::npos) << "no \"" << part << "\" in:\n" << result.output;
}

TEST(InspectCommand, ShowsGgufModels) {
  TemporaryFolder folder;
  const Json config = tiny_config();
  write_tiny_gguf(folder / "model", config, tiny_tensors(config));  // known by its first bytes, not by its name
  const Json found = inspect_json(folder / "model");
  EXPECT_EQ(found["format"], "gguf");
  EXPECT_EQ(found["bytes"], std::filesystem::file_size(folder / "model"));
  EXPECT_EQ(found["metadata"]["llama.block_count"], 2);
  EXPECT_EQ(found["base_model"], (Json{{"usable", true}, {"family", "llama"}}));
  EXPECT_EQ(
      found["tensors"][0],
      (Json{{"name", "rope_freqs.weight"}, {"type", "F32"}, {"shape", {3}}, {"bytes", 12}, {"bits_per_weight", 32.0}}));
  EXPECT_EQ(found["total"]["tensors"], found["tensors"].size());
  EXPECT_EQ(found["total"]["bits_per_weight"], 32.0);
  expect_shown(inspect(folder / "model"), {"usable as a base model: yes, family llama", "llama.block_count",
                                           "token_embd.weight", "[13,10]", "by type"});
}

TEST(InspectCommand, ShowsEveryTypeAndWhyAFileIsNoBaseModel) {
  const Json found = inspect_json(golden / "container.gguf");
  EXPECT_EQ(found["base_model"]["usable"], false);
  EXPECT_NE(found["base_model"]["reason"].get<std::string>().find("block_count"), std::string::npos);
  EXPECT_EQ(found["by_type"].size(), 26U);
  for (const Json& type : found["by_type"]) {
    if (type["type"] == "Q4_0") {
      EXPECT_EQ(type["bits_per_weight"], 4.5);
    }
  }
  expect_shown(inspect(golden / "container.gguf"), {"usable as a base model: no: ", "\"naïve ▁\"", "IQ2_XXS", "NVFP4"});
}

TEST(InspectCommand, CutsLongArraysUnlessAskedNotTo) {
  TemporaryFolder folder;
  GgufWriter writer;
  std::vector<int32_t> values(100);
  for (int i = 0; i < 100; ++i) values[static_cast<size_t>(i)] = i;
  writer.set_i32s("long", values);
  writer.begin(folder / "a.gguf");
  writer.commit();
  const Json cut = inspect_json(folder / "a.gguf")["metadata"]["long"];
  EXPECT_EQ(cut["count"], 100);
  EXPECT_EQ(cut["first"], (Json{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(inspect_json(folder / "a.gguf", {"--json", "--full"})["metadata"]["long"], Json(values));
}

TEST(InspectCommand, ShowsSafetensorsFoldersAndAdapters) {
  TemporaryFolder folder;
  const Json file = inspect_json(golden / "dtypes.safetensors");
  EXPECT_EQ(file["format"], "safetensors");
  EXPECT_EQ(file["metadata"], (Json{{"format", "pt"}}));
  EXPECT_EQ(file["tensors"].size(), 18U);

  const Json config = tiny_config();
  write_tiny_folder(folder / "hf", config, tiny_tensors(config));
  const Json model = inspect_json(folder / "hf");
  EXPECT_EQ(model["format"], "hugging face");
  EXPECT_EQ(model["metadata"]["hidden_size"], 10);
  EXPECT_EQ(model["base_model"]["usable"], true);

  std::filesystem::create_directory(folder / "adapter");
  write_json(folder / "adapter" / "adapter_config.json", {{"peft_type", "LORA"}, {"r", 4}});
  write_safetensors(folder / "adapter" / "adapter_model.safetensors", {{"a.lora_A.weight", at::zeros({4, 8})}});
  const Json adapter = inspect_json(folder / "adapter");
  EXPECT_EQ(adapter["format"], "peft");
  EXPECT_EQ(adapter["metadata"]["r"], 4);
  EXPECT_FALSE(adapter.contains("base_model"));
  expect_shown(inspect(folder / "adapter"), {"peft", "a.lora_A.weight", "[4,8]"});
}

TEST(InspectCommand, ShowsHdf5) {
  TemporaryFolder folder;
  {
    Hdf5File file = Hdf5File::create(folder / "a.h5");
    file.create_array<int32_t>("tokens", 1, 16);
    file.create_array<float>("values", 3, 16);
    const std::vector<int32_t> tokens(100, 7);
    file.append<int32_t>("tokens", tokens);
    const std::vector<float> values(6);
    file.append<float>("values", values);
    file.write_attribute("key", "abc");
    file.seal();
  }
  const Json found = inspect_json(folder / "a.h5");
  EXPECT_EQ(found["format"], "hdf5");
  EXPECT_EQ(found["metadata"], (Json{{"key", "abc"}}));
  ASSERT_EQ(found["tensors"].size(), 2U);
  EXPECT_EQ(found["tensors"][0]["name"], "tokens");
  EXPECT_EQ(found["tensors"][0]["type"], "int32");
  EXPECT_EQ(found["tensors"][0]["shape"], (Json{100}));
  EXPECT_EQ(found["tensors"][1]["type"], "float32");
  EXPECT_EQ(found["tensors"][1]["shape"], (Json{2, 3}));
}

TEST(InspectCommand, RefusesDamagedFilesWith65) {
  TemporaryFolder folder;
  const auto refuses = [&](const std::filesystem::path& path, const std::string& part, int status = 65) {
    const ProcessResult result = inspect(path);
    EXPECT_EQ(result.status, status) << path;
    EXPECT_EQ(result.output, "");
    EXPECT_NE(result.errors.find(part), std::string::npos) << result.errors;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
  };
  write_atomic(folder / "a", "plain text");
  refuses(folder / "a", "neither GGUF, safetensors nor HDF5");
  write_atomic(folder / "b", "GGUF and no more");
  refuses(folder / "b", "not a sound GGUF file");
  write_atomic(folder / "c.safetensors", "short");
  refuses(folder / "c.safetensors", "a safetensors file has at least 8");
  write_atomic(folder / "d", "\x89HDF\r\n\x1a\n and no more");
  refuses(folder / "d", "not a sealed HDF5 file");
  refuses(folder.path(), "it has none of them");
  refuses(folder / "none", "none", 74);
}

}  // namespace
}  // namespace retort
