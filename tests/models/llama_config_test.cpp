// The llama family: configurations of published models, row order and rotary factors against llama.cpp's converter, and
// everything that it does not support refused.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "models/family.h"
#include "models/safetensors.h"
#include "tests/core/support.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

const std::filesystem::path golden = RETORT_GOLDEN;

ModelConfig read(const std::string& text) {
  const Json json = parse_json(text, "config.json");
  return family_of_model_type(json["model_type"], "config.json").from_hf(json, "config.json");
}

TEST(LlamaConfig, ReadsSmolLm2) {  // 135M-Instruct
  const ModelConfig c =
      read(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.0417,
    "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 49152})");
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.vocab, 49152);
  EXPECT_EQ(c.dim, 576);
  EXPECT_EQ(c.layers, 30);
  EXPECT_EQ(c.heads, 9);
  EXPECT_EQ(c.kv_heads, 3);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.ffn, 1536);
  EXPECT_EQ(c.context, 8192);
  EXPECT_EQ(c.rope_theta, 1e5);
  EXPECT_EQ(c.norm_eps, 1e-5F);
  EXPECT_TRUE(c.tied);
  EXPECT_TRUE(c.rope_factors.empty());
  EXPECT_FALSE(c.llama3);
}

TEST(LlamaConfig, ReadsLlama2WithDefaultsLeftOut) {  // 7b-hf
  const ModelConfig c = read(R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "rms_norm_eps": 1e-05,
    "rope_scaling": null, "vocab_size": 32000})");
  EXPECT_EQ(c.kv_heads, 32);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.rope_theta, 1e4);
  EXPECT_FALSE(c.tied);
  EXPECT_FALSE(c.attention_bias);
  EXPECT_EQ(c.sliding_window, 0);
}

TEST(LlamaConfig, ReadsLlama31InBothFormsOfRope) {  // 8B
  const std::string common =
      R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "mlp_bias": false,
    "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "vocab_size": 128256, )";
  const std::string scaling = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3")";
  for (const ModelConfig& c : {read(common + R"("rope_theta": 500000.0, "rope_scaling": {)" + scaling + "}}"),
                               read(common + R"("rope_parameters": {"rope_theta": 500000.0, )" + scaling + "}}")}) {
    EXPECT_EQ(c.rope_theta, 5e5);
    ASSERT_TRUE(c.llama3);
    EXPECT_EQ(c.llama3->factor, 8);
    EXPECT_EQ(c.llama3->original_context, 8192);
    EXPECT_EQ(c.rope_factors.size(), 64U);
  }
}

TEST(LlamaConfig, ReadsMistral7B) {  // v0.1
  const ModelConfig c = read(R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "sliding_window": 4096, "tie_word_embeddings": false, "vocab_size": 32000})");
  EXPECT_EQ(c.sliding_window, 4096);
  EXPECT_EQ(c.kv_heads, 8);
  EXPECT_EQ(c.family, "llama");
}

TEST(LlamaConfig, ReadsMistralNemoWithHeadsOfTheirOwnSize) {
  const ModelConfig c = read(R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 14336, "max_position_embeddings": 131072,
    "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 131072})");
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_NE(c.head_dim * c.heads, c.dim);
  EXPECT_EQ(c.sliding_window, 0);
}

TEST(LlamaConfig, ReadsLinearRopeScaling) {
  Json json = tiny_config();
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 2e4}};
  const ModelConfig c = read(json.dump());
  EXPECT_EQ(c.rope_linear_factor, 4);
  EXPECT_EQ(c.rope_theta, 2e4);
  json.erase("rope_parameters");
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};  // the oldest form
  EXPECT_EQ(read(json.dump()).rope_linear_factor, 2);
}

TEST(LlamaConfig, RefusesWhatItDoesNotSupport) {
  const auto refuses = [](const std::string& key, const Json& value, const std::string& part) {
    Json json = tiny_config();
    json[key] = value;
    SCOPED_TRACE(key + " = " + value.dump());
    expect_error(Exit::bad_input, {"config.json", part}, [&] { read(json.dump()); });
  };
  refuses("model_type", "qwen9", "model_type \"qwen9\" is not supported, allowed: llama, mistral");
  refuses("hidden_act", "gelu", "hidden_act is \"gelu\", allowed: \"silu\"");
  refuses("pretraining_tp", 2, "pretraining_tp is 2, allowed: 1");
  refuses("attention_dropout", 0.1, "attention_dropout is 0.1, allowed: 0.0");
  refuses("quantization_config", {{"bits", 4}}, "quantization_config is {\"bits\":4}, allowed: null");
  refuses("partial_rotary_factor", 0.5, "partial_rotary_factor is 0.5, allowed: 1");
  refuses("sliding_window", 128, "sliding_window is 128, allowed: null");
  refuses("architectures", {"LlamaForSequenceClassification"}, "expected a causal language model");
  refuses("rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}}, "contradict each other");
  refuses("rope_parameters", {{"rope_type", "yarn"}, {"factor", 4.0}},
          "rope_type \"yarn\" is not supported, allowed: default, linear, llama3");
  refuses("rope_parameters", {{"rope_type", "llama3"}, {"factor", 8.0}}, "key \"low_freq_factor\" is missing");
  refuses("rope_parameters", {{"rope_type", "linear"}, {"factor", 0.0}}, "rotary scaling factor is 0");
  refuses("rope_parameters", {{"rope_type", "default"}, {"rope_theta", -1.0}}, "rotary base is -1");
  refuses("rope_parameters", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is 0.5");
  refuses("vocab_size", 0, "vocabulary's size is 0, allowed: 1 to");
  refuses("vocab_size", "many", "key \"vocab_size\" has the wrong type");
  refuses("num_hidden_layers", 1000000000, "number of layers is 1000000000");
  refuses("num_key_value_heads", 3, "4 attention heads cannot share 3 key and value heads");
  refuses("num_key_value_heads", 8, "number of key and value heads is 8, allowed: 1 to 4");
  refuses("head_dim", 5, "size of a head is 5, rotary embeddings need an even one");
  refuses("head_dim", nullptr, "hidden_size 10 is no multiple of num_attention_heads 4");
  refuses("rms_norm_eps", -1, "epsilon is -1");
  Json json = tiny_config();
  json["model_type"] = "mistral";
  expect_error(Exit::bad_input, {"attention_bias is true, allowed: false"}, [&] { read(json.dump()); });
}

TEST(LlamaFamily, PermutesRowsAsLlamaCppsConverter) {
  const auto file = SafetensorsFile::open(golden / "llama_gguf.safetensors");
  for (auto [heads, head_dim] : std::vector<std::pair<int64_t, int64_t>>{{9, 64}, {3, 64}, {2, 6}, {1, 2}}) {
    const TensorSpec spec{"q", "q", {heads * head_dim, 1}, heads};
    const auto order = rows_to_gguf(spec);
    const at::Tensor expected = file->tensor(fmt::format("rows_{}_{}", heads, head_dim));
    EXPECT_TRUE(at::equal(at::tensor(order, at::kLong), expected));
    const auto back = rows_to_hf(spec);
    for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(back[static_cast<size_t>(order[i])], static_cast<int64_t>(i));
  }
  EXPECT_TRUE(rows_to_gguf({"v", "v", {8, 1}, 0}).empty());
}

TEST(LlamaFamily, ComputesRopeFactorsAsLlamaCppsConverter) {
  const auto file = SafetensorsFile::open(golden / "llama_gguf.safetensors");
  const auto matches = [&](const std::string& name, int64_t head_dim, double theta, double factor, int64_t original) {
    Json json = tiny_config();
    json["head_dim"] = head_dim;
    json["rope_parameters"]["rope_theta"] = theta;
    json["rope_parameters"]["factor"] = factor;
    json["rope_parameters"]["original_max_position_embeddings"] = original;
    const at::Tensor expected = file->tensor("factors_" + name);
    EXPECT_TRUE(at::equal(at::tensor(read(json.dump()).rope_factors), expected)) << name;
    EXPECT_GT(expected.max().item<float>(), expected.min().item<float>());
  };
  matches("llama31_8b", 128, 5e5, 8, 8192);
  matches("llama32_1b", 64, 5e5, 32, 8192);
  matches("small", 20, 1e4, 8, 16);
}

}  // namespace
}  // namespace retort
