// A Hugging Face folder becomes a GGUF file that needs nothing else: architecture, vocabulary, template, rotary
// factors.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/files.h"
#include "core/json.h"
#include "data/tokenizer.h"
#include "export/gguf.h"
#include "models/gguf.h"
#include "models/served.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// A small Llama with llama3 rope scaling, biases left out, in bf16, with a tokenizer of tests/golden/tokenizers.
void write_folder(const fs::path& folder) {
  fs::copy(golden_folder / "tokenizers" / "smollm", folder);
  write_json(folder / "config.json", {{"model_type", "llama"},
                                      {"architectures", {"LlamaForCausalLM"}},
                                      {"vocab_size", 512},
                                      {"hidden_size", 64},
                                      {"intermediate_size", 96},
                                      {"num_hidden_layers", 2},
                                      {"num_attention_heads", 4},
                                      {"num_key_value_heads", 2},
                                      {"max_position_embeddings", 128},
                                      {"rms_norm_eps", 1e-5},
                                      {"tie_word_embeddings", false},
                                      {"rope_scaling",
                                       {{"rope_type", "llama3"},
                                        {"factor", 8.0},
                                        {"low_freq_factor", 1.0},
                                        {"high_freq_factor", 4.0},
                                        {"original_max_position_embeddings", 16}}}});
  Json tokenizer = read_json(folder / "tokenizer_config.json");
  tokenizer["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}";
  write_json(folder / "tokenizer_config.json", tokenizer);
  at::manual_seed(1);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    const at::Tensor noise = at::randn(shape);
    const at::Tensor weight =
        shape.size() == 1 ? 1 + 0.2 * noise : noise / std::sqrt(static_cast<double>(shape.back()));
    tensors.emplace_back(name, weight.to(at::kBFloat16));
  };
  add("model.embed_tokens.weight", {512, 64});
  add("lm_head.weight", {512, 64});
  add("model.norm.weight", {64});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "input_layernorm.weight", {64});
    add(layer + "post_attention_layernorm.weight", {64});
    add(layer + "self_attn.q_proj.weight", {64, 64});
    add(layer + "self_attn.k_proj.weight", {32, 64});
    add(layer + "self_attn.v_proj.weight", {32, 64});
    add(layer + "self_attn.o_proj.weight", {64, 64});
    add(layer + "mlp.gate_proj.weight", {96, 64});
    add(layer + "mlp.up_proj.weight", {96, 64});
    add(layer + "mlp.down_proj.weight", {64, 96});
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

TEST(FromHuggingFace, TheFileServesTheTrainersLogitsAndTokens) {
  TemporaryFolder temporary;
  const fs::path folder = temporary.path() / "hf", out = temporary.path() / "out.gguf";
  write_folder(folder);
  const auto base = Checkpoint::open(folder);
  const auto model = CausalLM::load(*base, {});
  attach(*model, {}, 1);
  at::manual_seed(2);
  for (const Parameter& parameter : trainable_parameters(*model)) parameter.tensor.detach().normal_(0, 0.05);
  export_gguf(out, *base, *model, gguf_type("F32"), {.name = "tuned"});

  const auto before = Tokenizer::open(folder), after = Tokenizer::open(out);
  EXPECT_EQ(after->hash(), before->hash());
  EXPECT_EQ(after->chat_template(), "{% for m in messages %}{{ m.content }}{% endfor %}");
  const std::vector<int32_t> ids =
      after->encode("The retort distils what the bulb boils, and the neck cools it.", true);
  EXPECT_EQ(ids, before->encode("The retort distils what the bulb boils, and the neck cools it.", true));
  ASSERT_GT(ids.size(), 20u);  // beyond the original context, where the factors matter

  const at::NoGradGuard no_grad;
  const at::Tensor tokens = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()));
  const at::Tensor expected = model->logits(model->hidden({tokens, tokens, {0, tokens.size(0)}}));
  const auto served = ServedModel::open(out, {.threads = 2, .exact = true});
  EXPECT_EQ(served->vocab(), 512);
  EXPECT_LT(relative_error(served->logits(ids), expected), 1e-5);

  // Quantized by way of the same metadata; norms stay F32, the chat template stays.
  export_gguf(out, *base, *model, gguf_type("Q8_0"), {});
  const auto file = GgufFile::open(out);
  EXPECT_EQ(file->find("blk.0.attn_norm.weight")->type_name(), "F32");
  EXPECT_EQ(file->find("blk.1.ffn_down.weight")->type_name(), "Q8_0");
  EXPECT_EQ(file->integer("general.file_type"), 7);
  EXPECT_NE(file->find("rope_freqs.weight"), nullptr);
  EXPECT_LT(relative_error(ServedModel::open(out, {.threads = 2, .exact = true})->logits(ids), expected), 0.05);
}

}  // namespace
}  // namespace retort
