// A model leaves as a Hugging Face folder and is the same when it is read again.
#include "export/hf_folder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "core/files.h"
#include "data/tokenizer.h"
#include "export/types.h"
#include "models/gguf.h"
#include "models/pruned_checkpoint.h"
#include "tests/adapters/golden.h"
#include "tests/core/support.h"
#include "tests/data/smollm2.h"
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

Batch a_text() {
  const at::Tensor ids = at::arange(1, 25);
  return {ids, ids, {0, ids.size(0)}};
}

at::Tensor logits_of(CausalLM& model) {
  const at::NoGradGuard no_grad;
  return model.logits(model.hidden(a_text()));
}

at::Tensor logits_of(const fs::path& folder) {
  const auto checkpoint = Checkpoint::open(folder);
  return logits_of(*CausalLM::load(*checkpoint, {}));
}

struct HfFolder : testing::Test {
  TemporaryFolder temporary;
  fs::path base = temporary / "base", out = temporary / "out";

  /// A base with an adapter that changes it.
  std::unique_ptr<CausalLM> tuned(const Checkpoint& checkpoint, const AdapterOptions& options = {}) {
    auto model = CausalLM::load(checkpoint, {});
    attach(*model, options, 1);
    at::manual_seed(2);
    for (const Parameter& parameter : trainable_parameters(*model)) parameter.tensor.detach().normal_(0, 0.05);
    return model;
  }
};

TEST_F(HfFolder, HoldsTheMergedModel) {
  write_tiny_folder(base, tiny_folder_config(), at::kFloat);
  const auto checkpoint = Checkpoint::open(base);
  const auto model = tuned(*checkpoint);
  const ExportedFile file = export_hf_folder(out, *checkpoint, *model);
  EXPECT_EQ(file.type, "F32");
  EXPECT_EQ(file.format, "safetensors");
  EXPECT_GT(relative_error(logits_of(out), logits_of(base)), 0.01);
  EXPECT_LT(relative_error(logits_of(out), logits_of(*model)), 1e-5);
  EXPECT_EQ(Tokenizer::open(out)->hash(), Tokenizer::open(base)->hash());
  EXPECT_EQ(read_text(out / "tokenizer.json"), read_text(base / "tokenizer.json"));
  EXPECT_EQ(read_json(out / "config.json")["dtype"], "float32");
}

TEST_F(HfFolder, ATiedHeadThatChangedIsWrittenAsAHeadOfItsOwn) {
  Json config = tiny_folder_config();
  config["tie_word_embeddings"] = true;
  write_tiny_folder(base, config, at::kFloat);
  const auto checkpoint = Checkpoint::open(base);
  AdapterOptions options;
  options.target_modules = {.expression = {}, .names = {"lm_head"}};
  const auto model = tuned(*checkpoint, options);
  export_hf_folder(out, *checkpoint, *model);
  EXPECT_EQ(read_json(out / "config.json")["tie_word_embeddings"], false);
  EXPECT_LT(relative_error(logits_of(out), logits_of(*model)), 1e-5);
}

TEST_F(HfFolder, KeepsAFoldersOwnTypeAndTakesAnother) {
  write_tiny_folder(base, tiny_folder_config());
  const auto checkpoint = Checkpoint::open(base);
  const auto model = CausalLM::load(*checkpoint, {});
  EXPECT_EQ(export_hf_folder(out, *checkpoint, *model).type, "BF16");
  EXPECT_EQ(Checkpoint::open(out)->hash(), checkpoint->hash());
  EXPECT_EQ(export_hf_folder(out, *checkpoint, *model, {.type = "F16"}).bits_per_weight, 16);
  EXPECT_EQ(Checkpoint::open(out)->tensor("model.norm.weight").type_name(), "F16");
}

TEST_F(HfFolder, ShardsAreReadAsOneModel) {
  write_tiny_folder(base, tiny_folder_config());
  const auto checkpoint = Checkpoint::open(base);
  const auto model = CausalLM::load(*checkpoint, {});
  export_hf_folder(out, *checkpoint, *model, {.shard_bytes = 60'000});
  EXPECT_FALSE(fs::exists(out / "model.safetensors"));
  EXPECT_TRUE(fs::exists(out / "model-00002-of-00005.safetensors"));
  EXPECT_EQ(Checkpoint::open(out)->hash(), checkpoint->hash());
  const Json index = read_json(out / "model.safetensors.index.json");
  EXPECT_EQ(index["weight_map"].size(), checkpoint->names().size());
}

TEST_F(HfFolder, ComesOutOfAGgufFileWithLlama3sRotaryFactors) {
  Json config = tiny_folder_config();
  config["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 500000.0},
                               {"factor", 32.0},          {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  write_tiny_folder(base, config, at::kFloat);
  const auto checkpoint = Checkpoint::open(base);
  const auto model = CausalLM::load(*checkpoint, {});
  const fs::path gguf = temporary / "model.gguf";
  export_gguf(gguf, *checkpoint, *model, gguf_type("F32"), {});
  const auto file = Checkpoint::open(gguf);
  export_hf_folder(out, *file, *CausalLM::load(*file, {}));
  EXPECT_EQ(Checkpoint::open(out)->hash(), checkpoint->hash());
  EXPECT_EQ(read_json(out / "config.json")["rope_parameters"], config["rope_parameters"]);
  EXPECT_EQ(Checkpoint::open(out)->config().rope_factors, checkpoint->config().rope_factors);
  EXPECT_EQ(Tokenizer::open(out)->hash(), Tokenizer::open(gguf)->hash());
}

TEST_F(HfFolder, WhatConfigJsonHasNoWordsForIsRefused) {
  Json config = tiny_folder_config();
  config["rope_parameters"] = {{"rope_type", "llama3"},   {"rope_theta", 500000.0},
                               {"factor", 31.0},          {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  write_tiny_folder(base, config, at::kFloat);
  const auto checkpoint = Checkpoint::open(base);
  const auto model = CausalLM::load(*checkpoint, {});
  const fs::path gguf = temporary / "model.gguf";
  export_gguf(gguf, *checkpoint, *model, gguf_type("F32"), {});
  const auto file = Checkpoint::open(gguf);
  expect_error(Exit::usage, {"model.gguf", "rotary factors"},
               [&] { export_hf_folder(out, *file, *CausalLM::load(*file, {})); });
  expect_error(Exit::usage, {"Q4_K", "F32, BF16, F16"},
               [&] { export_hf_folder(out, *checkpoint, *model, {.type = "Q4_K"}); });
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(HfFolder, WhatSaysWhereWeightsLayOrHowTheyWerePrunedStaysBehind) {
  write_tiny_folder(base, tiny_folder_config());
  const auto checkpoint = Checkpoint::open(base);
  for (const char* name : {"prune.json", "pytorch_model.bin.index.json"}) write_json(base / name, Json::object());
  write_json(base / "generation_config.json", {{"temperature", 0.5}});
  export_hf_folder(out, *checkpoint, *CausalLM::load(*checkpoint, {}));
  EXPECT_FALSE(fs::exists(out / "prune.json"));
  EXPECT_FALSE(fs::exists(out / "pytorch_model.bin.index.json"));
  EXPECT_TRUE(fs::exists(out / "generation_config.json"));
}

TEST_F(HfFolder, NumbersThatAreNotFiniteAreRefusedAndNothingIsWritten) {
  write_tiny_folder(base, tiny_folder_config());
  const auto checkpoint = Checkpoint::open(base);
  const auto model = tuned(*checkpoint);
  trainable_parameters(*model)[0].tensor.detach().fill_(INFINITY);
  expect_error(Exit::bad_input, {"not finite"}, [&] { export_hf_folder(out, *checkpoint, *model); });
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(HfFolder, ATokenizerThatGivesOtherTokensIsRefusedAndNothingIsWritten) {
  write_tiny_folder(base, tiny_folder_config());
  const auto checkpoint = Checkpoint::open(base);
  const auto model = CausalLM::load(*checkpoint, {});
  GgufVocabulary vocabulary = read_vocabulary(base);
  std::swap(vocabulary.tokens[40], vocabulary.tokens[41]);  // "H" now stands for its neighbour, and the text comes back
  EXPECT_NO_THROW(export_hf_folder(out, *checkpoint, *model, {.vocabulary = &vocabulary}));
  fs::remove_all(out);
  vocabulary.tokens.resize(100);  // bytes are missing
  vocabulary.types.resize(100);
  vocabulary.merges.clear();
  EXPECT_THROW(export_hf_folder(out, *checkpoint, *model, {.vocabulary = &vocabulary}), Error);
  EXPECT_FALSE(fs::exists(out));
}

// check_hf_folder.py compares such a folder with transformers; every weight and token is checked by the export itself.
TEST_F(HfFolder, ComesOutOfSmolLM2sFile) {
  const auto checkpoint = Checkpoint::open(smollm2_path());
  const auto small = prune_while_reading(*checkpoint, {.layers = {0, 29}});
  const auto model = CausalLM::load(*small, {});
  export_hf_folder(out, *small, *model);
  EXPECT_EQ(Tokenizer::open(out)->hash(), Tokenizer::open(smollm2_path())->hash());
  const Json config = read_json(out / "config.json");
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["eos_token_id"], 2);
  EXPECT_EQ(read_json(out / "generation_config.json")["eos_token_id"][0], 2);
  // Products with quantized blocks round otherwise than those with the numbers that they stand for.
  EXPECT_LT(relative_error(logits_of(out), logits_of(*model)), 1e-4);
}

}  // namespace
}  // namespace retort
