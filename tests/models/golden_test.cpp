// The decoder against transformers + PEFT: logits, loss, the gradient of every LoRA parameter.
#include <gtest/gtest.h>

#include "tests/models/tiny.h"

namespace retort {
namespace {

struct Case {
  const char* variant;
  at::ScalarType dtype;
  BaseForm base;
  bool checkpointing;
  double tolerance;
};

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, LogitsLossAndEveryGradientAgreeWithTransformers) {
  const Case& c = GetParam();
  const auto model = tiny_model(c.variant, c.dtype, c.base);
  const auto expected = SafetensorsFile::open(tiny_folder(c.variant) / "expected.safetensors");
  const auto wanted = [&](const std::string& name) { return expected->tensor(name).to(c.dtype); };
  for (Linear* linear : model->linears())
    linear->adapter =
        std::make_unique<TestLora>(wanted(linear->name + ".lora_A").clone(), wanted(linear->name + ".lora_B").clone());

  Batch batch;
  batch.ids = expected->tensor("ids");
  batch.labels = expected->tensor("labels");
  batch.offsets = {0, batch.ids.size(0)};
  const at::Tensor hidden = model->hidden(batch, {.training = true, .checkpointing = c.checkpointing});
  EXPECT_LT(relative(model->logits(hidden), expected->tensor("logits")), c.tolerance);
  const at::Tensor loss = model->cross_entropy(hidden, batch.labels);
  EXPECT_EQ(loss.scalar_type(), c.dtype);
  EXPECT_LT(relative(loss, expected->tensor("loss")), c.tolerance);
  loss.backward();
  for (Linear* linear : model->linears()) {
    const auto& lora = static_cast<TestLora&>(*linear->adapter);
    ASSERT_TRUE(lora.a.grad().defined()) << linear->name;
    EXPECT_LT(relative(lora.a.grad(), expected->tensor(linear->name + ".lora_A.grad")), c.tolerance) << linear->name;
    EXPECT_LT(relative(lora.b.grad(), expected->tensor(linear->name + ".lora_B.grad")), c.tolerance) << linear->name;
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* variant : {"grouped", "biases", "head_dim", "window"}) {
    all.push_back({variant, at::kDouble, BaseForm::dense, false, 1e-9});
    all.push_back({variant, at::kFloat, BaseForm::dense, false, 1e-4});
    all.push_back({variant, at::kDouble, BaseForm::native, true, 1e-9});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(TinyLlama, Golden, testing::ValuesIn(cases()), [](const auto& info) {
  const Case& c = info.param;
  return fmt::format("{}_{}_{}", c.variant, c.dtype == at::kDouble ? "f64" : "f32",
                     c.base == BaseForm::native ? "native_checkpointing" : "dense");
});

}  // namespace
}  // namespace retort
