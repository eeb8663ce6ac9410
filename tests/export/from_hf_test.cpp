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
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

/// With llama3 rope scaling, biases left out, in bf16.
void write_folder(const fs::path& folder) {
  Json config = tiny_folder_config();
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 16}};
  write_tiny_folder(folder, config);
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
  EXPECT_EQ(after->chat_template(), before->chat_template());
  EXPECT_NE(after->chat_template(), "");
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
