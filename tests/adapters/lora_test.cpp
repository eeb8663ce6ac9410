// What the kinds of adapters have in common beyond PEFT's numbers (peft_golden_test.cpp): starts, dropout, types.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "core/error.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

TEST(Lora, GradientsAddUpInBuffersThatStay) {
  const auto model = peft_model();
  const auto file = SafetensorsFile::open(golden_folder / "peft_lora.safetensors");
  const Batch batch = golden_batch(*file);
  load_peft(golden_folder / "peft_lora", *model);
  const auto step = [&] { model->cross_entropy(model->hidden(batch, {.training = true}), batch.labels).backward(); };
  step();
  const Parameter parameter = trainable_parameters(*model).front();
  const at::Tensor once = parameter.tensor.grad().clone();
  const void* buffer = parameter.tensor.grad().data_ptr();
  step();
  EXPECT_EQ(parameter.tensor.grad().data_ptr(), buffer);
  EXPECT_LT(relative_error(parameter.tensor.grad(), 2 * once), 1e-12);
}

TEST(Lora, BStartsAtZeroAndAIsKaimingUniform) {
  const auto model = peft_model(at::kFloat);
  AdapterOptions options;
  options.r = 64;
  const AttachReport report = attach(*model, options, 7);
  EXPECT_EQ(report.targets.size(), 21u);
  EXPECT_EQ(report.trainable, [&] {
    int64_t sum = 0;
    for (const Parameter& parameter : trainable_parameters(*model)) sum += parameter.tensor.numel();
    return sum;
  }());
  EXPECT_EQ(report.frozen, 2 * 48 * 16 + 3 * (2 * 16 * 16 + 2 * 8 * 16 + 3 * 24 * 16 + 2 * 16) + 16);
  for (const Parameter& parameter : trainable_parameters(*model)) {
    EXPECT_EQ(parameter.tensor.scalar_type(), at::kFloat);
    EXPECT_TRUE(parameter.tensor.requires_grad());
    if (parameter.name.ends_with("lora_B.weight")) {
      EXPECT_EQ(parameter.tensor.abs().max().item<float>(), 0);
    } else {
      const double bound = 1 / std::sqrt(static_cast<double>(parameter.tensor.size(1)));
      EXPECT_LE(parameter.tensor.abs().max().item<double>(), bound);
      EXPECT_GT(parameter.tensor.abs().max().item<double>(), 0.98 * bound);
      EXPECT_NEAR(parameter.tensor.std().item<double>(), bound / std::sqrt(3), 0.1 * bound);
    }
  }
}

TEST(Lora, ALayersStartDependsOnSeedAndNameOnly) {
  const auto model = peft_model(at::kFloat);
  const std::string name = "model.layers.2.mlp.up_proj.lora_A.weight";
  const auto drawn = [&](const AdapterOptions& options, uint64_t seed) {
    attach(*model, options, seed);
    for (const Parameter& parameter : trainable_parameters(*model))
      if (parameter.name == name) return parameter.tensor.detach().clone();
    return at::Tensor();
  };
  AdapterOptions one;
  one.target_modules = {.expression = "", .names = {"up_proj"}};
  EXPECT_TRUE(at::equal(drawn({}, 7), drawn(one, 7)));
  EXPECT_FALSE(at::equal(drawn({}, 7), drawn({}, 8)));
  AdapterOptions gaussian;
  gaussian.init_lora_weights.kind = LoraInit::gaussian;
  EXPECT_NEAR(drawn(gaussian, 7).std().item<double>(), 1.0 / 16, 0.01);
}

std::unique_ptr<LinearAdapter> made(const char* kind, const Linear& linear, const AdapterOptions& options,
                                    const Target& target, at::ScalarType type) {
  std::any shared;
  const std::vector<const Linear*> all = {&linear};
  return adapter_kind(kind).make({linear, options, target, type, at::kCPU, 1, all, shared, {}});
}

/// The adapter alone on random numbers, with dropout.
class Drops : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    linear_.name = "model.layers.0.mlp.up_proj";
    linear_.in = 40;
    linear_.out = 24;
    options_.r = 4;
    options_.lora_dropout = 0.25;
    at::manual_seed(3);
    linear_.weight = at::randn({24, 40}, at::kDouble);
    adapter_ = made(GetParam(), linear_, options_, {.index = 0, .r = 4, .alpha = 8, .scale = 2}, at::kDouble);
    for (const Parameter& parameter : adapter_->parameters()) parameter.tensor.detach().normal_();
    x_ = at::randn({50, 40}, at::kDouble);
  }
  at::Tensor run(uint64_t micro_step, bool training) {
    adapter_->set_micro_step(micro_step);
    at::Tensor y = at::zeros({50, 24}, at::kDouble);
    adapter_->forward(linear_, x_, y, training, kept_);
    return y;
  }
  Linear linear_;
  AdapterOptions options_;
  std::unique_ptr<LinearAdapter> adapter_;
  at::Tensor x_;
  Kept kept_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, Drops, testing::Values("lora", "dora", "vera"));

TEST_P(Drops, RepeatsForAMicroBatchAndChangesWithTheNext) {
  EXPECT_TRUE(at::equal(run(5, true), run(5, true)));
  EXPECT_FALSE(at::equal(run(5, true), run(6, true)));
  EXPECT_TRUE(at::equal(run(5, false), run(6, false)));
}

/// What the memory plan multiplies by the tokens.
TEST_P(Drops, KeepsAsManyNumbersOfATokenAsItSays) {
  run(5, true);
  int64_t kept = 0;
  for (const at::Tensor& tensor : kept_)
    if (tensor.size(0) == x_.size(0)) kept += tensor.numel();
  EXPECT_EQ(kept, x_.size(0) * adapter_->kept_of_a_token());
}

TEST(Ia3, KeepsAsManyNumbersOfATokenAsItSays) {
  for (const char* name : {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"}) {
    Linear linear;
    linear.name = name;
    linear.in = 40;
    linear.out = 24;
    linear.weight = at::randn({24, 40}, at::kDouble);
    AdapterOptions options;
    options.kind = "ia3";
    const auto adapter = made("ia3", linear, options, {.index = 0, .r = 1, .alpha = 1, .scale = 1}, at::kDouble);
    Kept kept;
    const at::Tensor y = at::zeros({50, 24}, at::kDouble);
    adapter->forward(linear, at::randn({50, 40}, at::kDouble), y, true, kept);
    int64_t numbers = 0;
    for (const at::Tensor& tensor : kept) numbers += tensor.numel();
    EXPECT_EQ(numbers, 50 * adapter->kept_of_a_token()) << name;
  }
}

TEST_P(Drops, KeepsTheExpectation) {
  at::Tensor sum = at::zeros({50, 24}, at::kDouble);
  for (uint64_t step = 0; step < 2000; ++step) sum += run(step, true);
  EXPECT_LT(relative_error(sum / 2000, run(0, false)), 0.08);
}

TEST_P(Drops, GradientsAreThoseOfTheDroppedInput) {
  run(5, true);
  const at::Tensor dy = at::randn({50, 24}, at::kDouble);
  at::Tensor dx = at::zeros_like(x_);
  adapter_->backward(linear_, x_, dy, kept_, dx, true);
  // loss = sum(dy * y(x)) is linear in x, and in each parameter but for DoRA's lengths, so differences are exact. DoRA
  // takes its lengths for constants, so only its m and x are held to this; PEFT's gradients hold the rest.
  const auto loss = [&] { return (dy * run(5, true)).sum().item<double>(); };
  const double base = loss();
  const auto check = [&](at::Tensor tensor, const at::Tensor& gradient) {
    for (int64_t i = 0; i < tensor.numel(); i += 7) {
      double& element = tensor.data_ptr<double>()[i];
      element += 1;
      EXPECT_NEAR(loss() - base, gradient.contiguous().data_ptr<double>()[i], 1e-9 * std::abs(base) + 1e-9);
      element -= 1;
    }
  };
  for (const Parameter& parameter : adapter_->parameters())
    if (GetParam() != std::string("dora") || parameter.name.ends_with("magnitude_vector"))
      check(parameter.tensor.detach(), parameter.tensor.grad());
  check(x_, dx);
}

TEST(Lora, DropoutWithCheckpointingGivesTheSameGradients) {
  const auto file = SafetensorsFile::open(golden_folder / "peft_lora.safetensors");
  const Batch batch = golden_batch(*file);
  std::vector<at::Tensor> gradients[2];
  for (const bool checkpointing : {false, true}) {
    const auto model = peft_model(at::kFloat);
    AdapterOptions options;
    options.lora_dropout = 0.5;
    attach(*model, options, 7);
    for (const Parameter& parameter : trainable_parameters(*model))
      if (parameter.name.ends_with("lora_B.weight")) parameter.tensor.detach().fill_(0.1);
    set_micro_step(*model, 3);
    model->cross_entropy(model->hidden(batch, {.training = true, .checkpointing = checkpointing}), batch.labels)
        .backward();
    for (const Parameter& parameter : trainable_parameters(*model))
      gradients[checkpointing].push_back(parameter.tensor.grad());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(at::equal(gradients[0][i], gradients[1][i])) << i;
}

TEST(Attach, ARankAboveAWeightsSmallerDimensionIsNamed) {
  const auto model = peft_model(at::kFloat);
  AdapterOptions options;
  options.r = 8;
  for (const char* kind : {"lora", "dora", "vera"}) {
    options.kind = kind;
    options.rank_pattern = {};
    EXPECT_NO_THROW(check_ranks(*model, options)) << kind;
    options.r = 17;  // every weight has 16 or fewer rows or columns
    if (options.kind == "vera") {
      EXPECT_NO_THROW(check_ranks(*model, options)) << "its projections are shared";
      continue;
    }
    options.r = 8;
    options.rank_pattern = {{"up_proj", 17}};
    try {
      check_ranks(*model, options);
      ADD_FAILURE() << kind;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      EXPECT_NE(std::string(error.what()).find("layers.0.mlp.up_proj is 24 x 16 and would get a product of rank 17"),
                std::string::npos)
          << error.what();
    }
  }
}

/// A block's input that waits in host memory comes back as it was.
TEST(DeviceOffloading, ChangesNoBit) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device: run bench/device on a machine that has one";
  std::vector<std::vector<at::Tensor>> gradients;
  for (const bool offload : {false, true}) {
    const auto model = CausalLM::load(*peft_base(), {.base = BaseForm::dense, .device = at::kCUDA});
    attach(*model, AdapterOptions{}, 1);
    const at::Tensor ids = at::arange(1, 40).remainder(48);
    const Batch batch{ids, ids, {0, 39}};
    model
        ->cross_entropy(model->hidden(batch, {.training = true, .checkpointing = true, .offload = offload}),
                        batch.labels)
        .backward();
    std::vector<at::Tensor>& all = gradients.emplace_back();
    for (const Parameter& p : trainable_parameters(*model)) all.push_back(p.tensor.grad().cpu());
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_TRUE(at::equal(gradients[0][i], gradients[1][i])) << i;
}

TEST(Lora, ComputesInBf16WithF32Parameters) {
  Linear linear;
  linear.name = "model.layers.0.mlp.up_proj";
  linear.in = 96;
  linear.out = 64;
  const AdapterOptions options;
  at::manual_seed(3);
  const at::Tensor x = at::randn({50, 96}, at::kDouble).to(at::kBFloat16),
                   dy = at::randn({50, 64}, at::kDouble).to(at::kBFloat16),
                   weight = at::randn({64, 96}, at::kDouble).to(at::kBFloat16);
  std::vector<at::Tensor> results[2];
  for (const at::ScalarType type : {at::kDouble, at::kBFloat16}) {
    linear.weight = weight.to(type);
    const auto adapter = made("lora", linear, options, {.index = 0, .r = 8, .alpha = 8, .scale = 1},
                              type == at::kDouble ? at::kDouble : at::kFloat);
    const auto parameters = adapter->parameters();
    parameters[1].tensor.detach().copy_(parameters[0].tensor.detach().flatten().slice(0, 0, 512).view({64, 8}));
    at::Tensor y = at::zeros({50, 64}, type), dx = at::zeros({50, 96}, type);
    Kept kept;
    adapter->forward(linear, x.to(type), y, true, kept);
    adapter->backward(linear, x.to(type), dy.to(type), kept, dx, true);
    for (const Parameter& parameter : parameters) {
      EXPECT_EQ(parameter.tensor.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
      EXPECT_EQ(parameter.tensor.grad().scalar_type(), parameter.tensor.scalar_type());
    }
    results[type == at::kBFloat16] = {y, dx, parameters[0].tensor.grad(), parameters[1].tensor.grad()};
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_LT(relative_error(results[1][i], results[0][i]), 0.02) << i;
}

TEST(Attach, AnUnknownKindNamesTheKnown) {
  const auto model = peft_model();
  AdapterOptions options;
  options.kind = "lroa";
  try {
    attach(*model, options, 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("lora"), std::string::npos);
  }
}

TEST(Attach, ModulesTrainedWholeAndTokenRowsAreCheckedBeforeAnythingIsAttached) {
  const auto refusal = [](const AdapterOptions& options, const std::string& base = "peft_base") {
    const auto model = peft_model(at::kFloat, base);
    try {
      attach(*model, options, 1);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      return std::string(error.what());
    }
    return std::string();
  };
  AdapterOptions options;
  options.modules_to_save = {"input_layernorm"};
  EXPECT_NE(refusal(options).find("norms stay frozen"), std::string::npos);
  options = {};
  options.trainable_token_indices = {48};
  EXPECT_NE(refusal(options).find("vocabulary has 48"), std::string::npos);
  options.trainable_token_indices = {7, 7};
  EXPECT_NE(refusal(options).find("twice"), std::string::npos);
  options.trainable_token_indices = {7};
  options.modules_to_save = {"embed_tokens"};
  EXPECT_NE(refusal(options).find("choose one"), std::string::npos);
  options.modules_to_save = {"lm_head"};
  EXPECT_EQ(refusal(options), "");
  EXPECT_NE(refusal(options, "peft_tied").find("the head is the embedding's matrix"), std::string::npos);
  options = {};
  options.kind = "dora";
  options.target_modules = {.expression = "", .names = {"q_proj", "embed_tokens"}};
  EXPECT_NE(refusal(options).find("are for linear layers"), std::string::npos);
}

TEST(Attach, CountsWhatIsTrainedWhole) {
  const auto model = peft_model(at::kFloat, "peft_biased");
  AdapterOptions options;
  options.modules_to_save = {"lm_head", "o_proj"};
  options.trainable_token_indices = {3, 5};
  const AttachReport report = attach(*model, options, 1);
  EXPECT_EQ(report.saved.size(), 4u);
  EXPECT_EQ(report.targets.size(), 18u) << "all-linear without o_proj";
  int64_t parameters = 0;
  for (const Parameter& parameter : trainable_parameters(*model)) parameters += parameter.tensor.numel();
  EXPECT_EQ(report.trainable, parameters);
}

}  // namespace
}  // namespace retort
