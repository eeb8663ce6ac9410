// PEFT folders both ways, and every way in which one can be wrong.
#include "adapters/peft.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "core/json.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

std::map<std::string, at::Tensor> parameters_of(CausalLM& model) {
  std::map<std::string, at::Tensor> all;
  for (const Parameter& parameter : trainable_parameters(model))
    all[parameter.name] = parameter.tensor.detach().clone();
  return all;
}

class PeftFolder : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, PeftFolder, testing::Values("lora", "rslora", "patterns", "head"));

TEST_P(PeftFolder, ReadAndWrittenAgainIsTheSame) {
  const fs::path golden = golden_folder / fmt::format("peft_{}", GetParam());
  const auto model = peft_model(at::kFloat);
  const LoadedAdapter loaded = load_peft(golden, *model);
  const auto before = parameters_of(*model);
  TemporaryFolder temporary;
  const fs::path folder = temporary.path() / "adapter";
  save_peft(folder, *model, loaded.options, loaded.origin);

  // Byte for byte PEFT's own file where it holds only the adapter.
  if (std::string(GetParam()) != "head") {
    EXPECT_EQ(read_text(folder / "adapter_model.safetensors"), read_text(golden / "adapter_model.safetensors"));
  }
  // The same configuration, but for keys that PEFT leaves at their neutral values.
  const Json ours = read_json(folder / "adapter_config.json"), theirs = read_json(golden / "adapter_config.json");
  const auto sorted = [](const Json& targets) {
    Json copy = targets;  // PEFT keeps a set, whose order means nothing
    if (copy.is_array()) std::sort(copy.begin(), copy.end());
    return copy;
  };
  for (const auto& [key, value] : ours.items()) EXPECT_EQ(sorted(value), sorted(theirs[key])) << key;

  const auto again = peft_model(at::kFloat);
  load_peft(folder, *again);
  const auto after = parameters_of(*again);
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, tensor] : before) EXPECT_TRUE(at::equal(tensor, after.at(name))) << name;
}

TEST(PeftSave, AllLinearIsStoredAsShortNamesThatMeanTheSame) {
  const auto model = peft_model(at::kFloat);
  AdapterOptions options;
  options.layers_to_transform = {1};
  attach(*model, options, 1);
  TemporaryFolder temporary;
  save_peft(temporary.path() / "a", *model, options, {});
  const Json config = read_json(temporary.path() / "a" / "adapter_config.json");
  EXPECT_EQ(config["target_modules"].size(), 7u);
  EXPECT_EQ(config["target_modules"][0], "down_proj");
  EXPECT_EQ(config["inference_mode"], true);
  const auto again = peft_model(at::kFloat);
  EXPECT_EQ(load_peft(temporary.path() / "a", *again).report.targets.size(), 7u);
}

TEST(PeftSave, AFileInTheWayOrAnUnwritableFolderIsAnError) {
  const auto model = peft_model(at::kFloat);
  attach(*model, {}, 1);
  TemporaryFolder temporary;
  std::ofstream(temporary.path() / "file") << "x";
  for (const fs::path& path : {temporary.path() / "file" / "adapter", fs::path("/proc/adapter")}) {
    try {
      save_peft(path, *model, {}, {});
      FAIL() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::io) << error.what();
    }
  }
}

/// A copy of the golden folder to spoil.
class Spoiled : public testing::Test {
 protected:
  void SetUp() override { fs::copy(golden_folder / "peft_lora", folder_); }

  void set(const std::string& key, const Json& value) {
    Json config = read_json(folder_ / "adapter_config.json");
    config[key] = value;
    write_json(folder_ / "adapter_config.json", config);
  }
  void remove(const std::string& key) {
    Json config = read_json(folder_ / "adapter_config.json");
    config.erase(key);
    write_json(folder_ / "adapter_config.json", config);
  }
  /// Writes the tensors again after `change`.
  void tensors(const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
    const auto file = SafetensorsFile::open(folder_ / "adapter_model.safetensors");
    std::map<std::string, at::Tensor> all;
    for (const auto& entry : file->entries()) all[entry.name] = file->tensor(entry.name).clone();
    change(all);
    write_safetensors(folder_ / "adapter_model.safetensors", {all.begin(), all.end()});
  }
  std::string load(const std::string& base_hash = "") {
    const auto model = peft_model(at::kFloat);
    try {
      load_peft(folder_, *model, base_hash);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_input) << error.what();
      EXPECT_TRUE(trainable_parameters(*model).empty());
      EXPECT_NE(std::string(error.what()).find(folder_.string()), std::string::npos) << error.what();
      return error.what();
    }
    return "loaded";
  }
  void expect_refused(const std::string& part) {
    const std::string message = load();
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }

  TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path() / "adapter";
  const std::string tensor_ = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight";
};

TEST_F(Spoiled, FiveKeysAreEnough) {
  std::ofstream(folder_ / "adapter_config.json") << R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "base_model_name_or_path": "somewhere/else"})";
  EXPECT_EQ(load(), "loaded");
}

TEST_F(Spoiled, HalfPrecisionTensorsAreAccepted) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kDouble}) {
    tensors([&](auto& all) {
      for (auto& [name, tensor] : all) tensor = tensor.to(type);
    });
    EXPECT_EQ(load(), "loaded");
  }
  tensors([&](auto& all) { all[tensor_] = all[tensor_].to(at::kLong); });
  expect_refused(tensor_ + " is of type I64");
}

TEST_F(Spoiled, ATensorThatIsMissingUnexpectedMisshapenOrNotFiniteIsNamed) {
  tensors([&](auto& all) { all[tensor_] = all[tensor_].t().contiguous(); });
  expect_refused(tensor_ + " has shape [16, 4], expected [4, 16]");
  tensors([&](auto& all) { all[tensor_] = at::full({4, 16}, std::nan("")); });
  expect_refused(tensor_ + " holds numbers that are not finite");
  tensors([&](auto& all) { all.erase(tensor_); });
  expect_refused(tensor_ + " is missing");
  tensors([&](auto& all) {
    all[tensor_] = at::zeros({4, 16});
    all["base_model.model.lm_head.weight"] = at::zeros({48, 16});
  });
  expect_refused("unexpected tensor base_model.model.lm_head.weight");
}

TEST_F(Spoiled, ATargetThatMatchesNothingIsNamed) {
  set("target_modules", {"q_proj", "w1"});
  expect_refused("\"w1\" matches no linear layer");
  set("target_modules", {"q_proj", "k_proj"});
  expect_refused("unexpected tensor");
  set("target_modules", nullptr);
  expect_refused("target_modules is missing");
}

TEST_F(Spoiled, WhatWouldChangeTheResultIsRefused) {
  const std::vector<std::pair<std::string, Json>> cases = {
      {"bias", "all"},
      {"modules_to_save", {"norm"}},
      {"trainable_token_indices", {1, 48}},
      {"trainable_token_indices", {{"lm_head", {1, 2}}}},
      {"target_parameters", {"x"}},
      {"layer_replication", Json::array({Json::array({0, 2})})},
      {"fan_in_fan_out", true},
      {"init_lora_weights", "pissa_niter_4"},
      {"init_lora_weights", "loftq"},
      {"task_type", "SEQ_CLS"},
      {"peft_type", "LOHA"},
      {"from_the_future", {{"x", 1}}},
      {"r", 0},
      {"r", 4.5},
      {"r", "4"},
      {"lora_alpha", -1},
      {"lora_dropout", 2},
      {"rank_pattern", {1}},
      {"rank_pattern", {{"q_proj", 0}}},
      {"rank_pattern", {{"(", 4}}},
      {"target_modules", 7},
      {"target_modules", {1}},
      {"layers_to_transform", "one"},
  };
  for (const auto& [key, value] : cases) {
    fs::remove_all(folder_);
    fs::copy(golden_folder / "peft_lora", folder_);
    set(key, value);
    const std::string message = load();
    EXPECT_NE(message.find(key), std::string::npos) << key << ": " << message;
  }
  for (const auto& [key, value, missing] : std::vector<std::tuple<const char*, Json, const char*>>{
           {"use_dora", Json(true), "lora_magnitude_vector"},
           {"lora_bias", true, "lora_B.bias"},
           {"modules_to_save", Json::array({"lm_head"}), "lm_head.weight"},
           {"trainable_token_indices", {1, 2}, "trainable_tokens_delta"}}) {
    fs::remove_all(folder_);
    fs::copy(golden_folder / "peft_lora", folder_);
    set(key, value);
    expect_refused(fmt::format("{} is missing", missing));
  }
  for (const char* key : {"peft_type", "r", "lora_alpha"}) {
    fs::remove_all(folder_);
    fs::copy(golden_folder / "peft_lora", folder_);
    remove(key);
    expect_refused(key);
  }
}

TEST_F(Spoiled, NeutralValuesOfUnknownKeysPass) {
  set("from_the_future", false);
  set("loftq_config", Json::object());
  set("layers_pattern", "");
  EXPECT_EQ(load(), "loaded");
}

TEST_F(Spoiled, AnotherBaseIsRefused) {
  write_json(folder_ / "retort.json", {{"base_hash", "aaaa"}});
  EXPECT_EQ(load(""), "loaded");
  EXPECT_EQ(load("aaaa"), "loaded");
  const std::string message = load("bbbb");
  EXPECT_NE(message.find("another base"), std::string::npos) << message;
  EXPECT_NE(message.find("peft_base"), std::string::npos) << message;
  write_json(folder_ / "retort.json", {{"base_hash", 7}});
  expect_refused("base_hash");
}

TEST_F(Spoiled, BrokenFilesAreRefused) {
  std::ofstream(folder_ / "adapter_config.json") << "{\"peft_type\": ";
  expect_refused("adapter_config.json");
  fs::remove(folder_ / "adapter_config.json");
  expect_refused("is no PEFT adapter");
  fs::copy(golden_folder / "peft_lora" / "adapter_config.json", folder_);
  fs::resize_file(folder_ / "adapter_model.safetensors", 100);
  expect_refused("adapter_model.safetensors");
  fs::remove(folder_ / "adapter_model.safetensors");
  expect_refused("adapter_model.safetensors is missing");
  std::ofstream(folder_ / "adapter_model.bin") << "x";
  expect_refused("adapter_model.bin can run code");
}

TEST_F(Spoiled, AHeadThatWasTrainedTooIsRefused) {
  fs::remove_all(folder_);
  fs::copy(golden_folder / "peft_head", folder_);
  tensors([&](auto& all) { all["base_model.model.lm_head.base_layer.weight"] += 1; });
  expect_refused("lm_head.base_layer.weight differs");
}

}  // namespace
}  // namespace retort
