// A view of a checkpoint with fewer layers, channels and tokens computes what the same model with those parts taken out
// by hand does.
#include "models/pruned_checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "models/causal_lm.h"
#include "tests/core/support.h"
#include "tests/models/tiny_files.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

at::Tensor logits_of(const Checkpoint& checkpoint, const std::vector<int64_t>& ids) {
  const at::NoGradGuard no_grad;
  const auto model = CausalLM::load(checkpoint, {});
  return model->logits(model->hidden({at::tensor(ids), {}, {0, static_cast<int64_t>(ids.size())}}));
}

void expect_near(const at::Tensor& got, const at::Tensor& wanted) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  EXPECT_LT((got - wanted).abs().max().item<double>(), 1e-5 * wanted.abs().max().item<double>());
}

struct PrunedCheckpoint : testing::Test {
  TemporaryFolder folder;
  Json json = tiny_config();
  TinyTensors tensors;

  void SetUp() override {
    json["num_hidden_layers"] = 4;
    tensors = tiny_tensors(json);
  }
  /// As a GGUF file, whose q and k lie in another order, or as a folder.
  std::unique_ptr<Checkpoint> whole(bool gguf = false) {
    if (gguf) {
      write_tiny_gguf(folder / "base.gguf", json, tensors);
      return Checkpoint::open(folder / "base.gguf");
    }
    write_tiny_folder(folder / "base", json, tensors);
    return Checkpoint::open(folder / "base");
  }
  std::unique_ptr<Checkpoint> by_hand(const Json& changed, const TinyTensors& smaller) {
    write_tiny_folder(folder / "small", changed, smaller);
    return Checkpoint::open(folder / "small");
  }
};

TEST_F(PrunedCheckpoint, LayersGo) {
  TinyTensors smaller;
  for (const auto& [name, tensor] : tensors) {
    if (!name.starts_with("model.layers."))
      smaller[name] = tensor;
    else if (name[13] == '0' || name[13] == '2')
      smaller["model.layers." + std::string(name[13] == '0' ? "0" : "1") + name.substr(14)] = tensor;
  }
  Json changed = json;
  changed["num_hidden_layers"] = 2;
  const auto expected = by_hand(changed, smaller);
  for (const bool gguf : {false, true}) {
    const auto base = whole(gguf);
    const auto view = prune_while_reading(*base, {.layers = {0, 2}});
    EXPECT_EQ(view->names(), expected->names());
    EXPECT_EQ(view->config().layers, 2);
    expect_near(logits_of(*view, {1, 2, 3, 4}), logits_of(*expected, {1, 2, 3, 4}));
    EXPECT_NE(view->hash(), base->hash());
    EXPECT_NE(view->hash(), prune_while_reading(*base, {.layers = {0, 3}})->hash());
  }
}

TEST_F(PrunedCheckpoint, ChannelsGo) {
  const std::vector<std::vector<int64_t>> channels = {{0, 3, 5, 13}, {1, 2, 3, 4}, {0, 1, 12, 13}, {6, 7, 8, 9}};
  TinyTensors smaller = tensors;
  for (int layer = 0; layer < 4; ++layer) {
    const std::string mlp = "model.layers." + std::to_string(layer) + ".mlp.";
    const at::Tensor kept = at::tensor(channels[static_cast<size_t>(layer)]);
    for (const char* rows : {"gate_proj.weight", "gate_proj.bias", "up_proj.weight", "up_proj.bias"})
      smaller[mlp + rows] = tensors[mlp + rows].index_select(0, kept).contiguous();
    smaller[mlp + "down_proj.weight"] = tensors[mlp + "down_proj.weight"].index_select(1, kept).contiguous();
  }
  Json changed = json;
  changed["intermediate_size"] = 4;
  const auto base = whole();
  const auto view = prune_while_reading(*base, {.channels = channels});
  expect_near(logits_of(*view, {1, 2, 3, 4}), logits_of(*by_hand(changed, smaller), {1, 2, 3, 4}));
}

TEST_F(PrunedCheckpoint, TokensGo) {
  const auto base = whole();
  const std::vector<int64_t> kept = {0, 2, 5, 12};
  const auto view = prune_while_reading(*base, {.tokens = kept});
  EXPECT_EQ(view->config().vocab, 4);
  expect_near(logits_of(*view, {1, 2, 3}), logits_of(*base, {2, 5, 12}).index_select(1, at::tensor(kept)));
}

TEST_F(PrunedCheckpoint, TheHashFollowsAllThatIsKept) {
  const auto base = whole();
  const auto hash = [&](Pruning kept) { return prune_while_reading(*base, std::move(kept))->hash(); };
  EXPECT_EQ(hash({.tokens = {1, 2}}), hash({.tokens = {1, 2}}));
  EXPECT_NE(hash({.tokens = {1, 2}}), hash({.tokens = {1, 3}}));
  EXPECT_NE(hash({.layers = {0}, .channels = {{0, 3}}}), hash({.layers = {0}, .channels = {{0, 4}}}));
}

TEST_F(PrunedCheckpoint, WhatTheBaseLacksIsRefused) {
  const auto base = whole();
  expect_error(Exit::usage, {"no layer 4", "0 to 3"}, [&] { prune_while_reading(*base, {.layers = {0, 4}}); });
  expect_error(Exit::usage, {"no token -1", "0 to 12"}, [&] { prune_while_reading(*base, {.tokens = {-1}}); });
  expect_error(Exit::usage, {"no MLP channel 14"},
               [&] { prune_while_reading(*base, {.layers = {0}, .channels = {{14}}}); });
}

}  // namespace
}  // namespace retort
