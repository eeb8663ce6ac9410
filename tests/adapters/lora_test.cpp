// LoRA's arithmetic: against PEFT (tests/golden/make_peft_lora.py), and what PEFT has no say in.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/merge.h"
#include "adapters/peft.h"
#include "core/error.h"
#include "tests/adapters/golden.h"

namespace retort {
namespace {

class Peft : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    expected_ = SafetensorsFile::open(golden_folder / fmt::format("peft_{}.safetensors", GetParam()));
    batch_ = golden_batch(*expected_);
  }
  std::filesystem::path folder() const { return golden_folder / fmt::format("peft_{}", GetParam()); }

  std::shared_ptr<const SafetensorsFile> expected_;
  Batch batch_;
};
INSTANTIATE_TEST_SUITE_P(Golden, Peft, testing::Values("lora", "rslora", "patterns", "head"));

TEST_P(Peft, LogitsAgree) {
  const auto model = peft_model();
  const at::Tensor before = model->logits(model->hidden(batch_));
  load_peft(folder(), *model);
  const at::Tensor logits = model->logits(model->hidden(batch_));
  EXPECT_LT(relative_error(logits, expected_->tensor("logits")), 1e-6);  // logits are f32
  EXPECT_GT(relative_error(before, expected_->tensor("logits")), 1e-2);
}

TEST_P(Peft, LossAndEveryGradientAgree) {
  const auto model = peft_model();
  load_peft(folder(), *model);
  const at::Tensor loss = model->cross_entropy(model->hidden(batch_, {.training = true}), batch_.labels);
  loss.backward();
  EXPECT_LT(relative_error(loss.detach().reshape({1}), expected_->tensor("loss")), 1e-12);
  const auto parameters = trainable_parameters(*model);
  EXPECT_EQ(parameters.size(), static_cast<size_t>(std::count_if(
                                   expected_->entries().begin(), expected_->entries().end(),
                                   [](const SafetensorsEntry& entry) { return entry.name.starts_with("grad."); })));
  for (const Parameter& parameter : parameters)
    EXPECT_LT(relative_error(parameter.tensor.grad(), expected_->tensor("grad.base_model.model." + parameter.name)),
              1e-9)
        << parameter.name;
}

TEST_P(Peft, MergedWeightsAgree) {
  const auto checkpoint = peft_base();
  const auto model = peft_model();
  load_peft(folder(), *model);
  int64_t compared = 0;
  for (const auto& [name, adapter] : adapted_weights(*model)) {
    const std::string key = "merged." + name.substr(0, name.size() - std::string(".weight").size());
    if (!expected_->find(key)) continue;
    EXPECT_LT(relative_error(merged_weight(checkpoint->tensor(name), *adapter), expected_->tensor(key)), 1e-6) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 4);
}

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
  gaussian.init_lora_weights = LoraInit::gaussian;
  EXPECT_NEAR(drawn(gaussian, 7).std().item<double>(), 1.0 / 16, 0.01);
}

/// The adapter alone on random numbers, with dropout.
class Dropout : public testing::Test {
 protected:
  void SetUp() override {
    linear_.name = "model.layers.0.mlp.up_proj";
    linear_.in = 40;
    linear_.out = 24;
    options_.r = 4;
    options_.lora_dropout = 0.25;
    adapter_ = adapter_kind("lora").make(
        {linear_, options_, {.index = 0, .r = 4, .alpha = 8, .scale = 2}, at::kDouble, at::kCPU, 1});
    at::manual_seed(3);
    for (const Parameter& parameter : adapter_->parameters()) parameter.tensor.detach().normal_();
    x_ = at::randn({50, 40}, at::kDouble);
  }
  at::Tensor run(uint64_t micro_step, bool training) {
    adapter_->set_micro_step(micro_step);
    at::Tensor y = at::zeros({50, 24}, at::kDouble);
    saved_ = adapter_->forward(x_, y, training);
    return y;
  }
  Linear linear_;
  AdapterOptions options_;
  std::unique_ptr<LinearAdapter> adapter_;
  at::Tensor x_, saved_;
};

TEST_F(Dropout, RepeatsForAMicroBatchAndChangesWithTheNext) {
  EXPECT_TRUE(at::equal(run(5, true), run(5, true)));
  EXPECT_FALSE(at::equal(run(5, true), run(6, true)));
  EXPECT_TRUE(at::equal(run(5, false), run(6, false)));
}

TEST_F(Dropout, KeepsTheExpectation) {
  at::Tensor sum = at::zeros({50, 24}, at::kDouble);
  for (uint64_t step = 0; step < 2000; ++step) sum += run(step, true);
  EXPECT_LT(relative_error(sum / 2000, run(0, false)), 0.05);
}

TEST_F(Dropout, GradientsAreThoseOfTheDroppedInput) {
  run(5, true);
  const at::Tensor dy = at::randn({50, 24}, at::kDouble);
  at::Tensor dx = at::zeros_like(x_);
  adapter_->backward(x_, dy, saved_, dx);
  // loss = sum(dy * y(x)) is linear in A, B and x one at a time, so differences are exact.
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
  for (const Parameter& parameter : adapter_->parameters()) check(parameter.tensor.detach(), parameter.tensor.grad());
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

TEST(Lora, ComputesInBf16WithF32Parameters) {
  Linear linear;
  linear.name = "model.layers.0.mlp.up_proj";
  linear.in = 96;
  linear.out = 64;
  const AdapterOptions options;
  at::manual_seed(3);
  const at::Tensor x = at::randn({50, 96}, at::kDouble).to(at::kBFloat16),
                   dy = at::randn({50, 64}, at::kDouble).to(at::kBFloat16);
  std::vector<at::Tensor> results[2];
  for (const at::ScalarType type : {at::kDouble, at::kBFloat16}) {
    const auto adapter = adapter_kind("lora").make({linear,
                                                    options,
                                                    {.index = 0, .r = 8, .alpha = 8, .scale = 1},
                                                    type == at::kDouble ? at::kDouble : at::kFloat,
                                                    at::kCPU,
                                                    1});
    const auto parameters = adapter->parameters();
    parameters[1].tensor.detach().copy_(parameters[0].tensor.detach().flatten().slice(0, 0, 512).view({64, 8}));
    at::Tensor y = at::zeros({50, 64}, type), dx = at::zeros({50, 96}, type);
    const at::Tensor saved = adapter->forward(x.to(type), y, true);
    adapter->backward(x.to(type), dy.to(type), saved, dx);
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

}  // namespace
}  // namespace retort
