// The student's own answers come from the student as it is: base and adapter, in llama.cpp.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "recipes/distill.h"
#include "tests/core/support.h"
#include "tests/export/tiny_folder.h"

namespace retort {
namespace {

/// The most likely tokens one after another, by LibTorch.
std::vector<int32_t> greedy(CausalLM& model, std::vector<int32_t> ids, size_t more) {
  const at::NoGradGuard no_grad;
  const size_t prompt = ids.size();
  for (size_t n = 0; n < more; ++n) {
    const Batch batch{at::tensor(ids, at::kInt).to(at::kLong), {}, {0, static_cast<int64_t>(ids.size())}};
    ids.push_back(static_cast<int32_t>(model.logits(model.hidden(batch))[-1].argmax().item<int64_t>()));
  }
  return {ids.begin() + static_cast<int64_t>(prompt), ids.end()};
}

TEST(OnPolicy, AnswersAreThoseOfTheAdaptedStudent) {
  const TemporaryFolder folder;
  write_tiny_folder(folder / "student", tiny_folder_config(), at::kFloat);
  const auto checkpoint = Checkpoint::open(folder / "student");
  const auto model = CausalLM::load(*checkpoint, {});
  const std::vector<int32_t> prompt = {40, 41, 42, 43};
  const std::vector<int32_t> of_base = greedy(*model, prompt, 8);
  attach(*model, {}, 1);
  at::manual_seed(3);
  const auto retrain = [&] {
    const at::NoGradGuard no_grad;
    for (const Parameter& p : trainable_parameters(*model)) at::Tensor(p.tensor).normal_(0, 0.5);
  };
  retrain();
  OnPolicyChoice choice;
  choice.temperature = 0;
  choice.refresh = 2;
  const Continue go_on = student_answers(std::make_shared<ServableFile>(folder / "student"), *model, choice, 1,
                                         std::make_shared<ObjectiveState>());
  const std::vector<int32_t> adapted = greedy(*model, prompt, 8);
  ASSERT_NE(adapted, of_base);
  EXPECT_EQ(go_on(prompt, 8, 1).ids, adapted);
  retrain();
  const std::vector<int32_t> later = greedy(*model, prompt, 8);
  ASSERT_NE(later, adapted);
  EXPECT_EQ(go_on(prompt, 8, 1).ids, adapted) << "until the refresh";
  EXPECT_EQ(go_on(prompt, 8, 1).ids, later);
  EXPECT_EQ(greedy(*model, prompt, 8), later) << "the trained adapter is on the model again";
}

}  // namespace
}  // namespace retort
