// A teacher against its file of higher precision.
#include "distill/teacher_error.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "distill/torch_teacher.h"
#include "tests/core/support.h"
#include "tests/models/tiny.h"

namespace retort {
namespace {

std::unique_ptr<Teacher> tiny_teacher(double noise) {
  auto model = tiny_model("grouped", at::kFloat);
  if (noise > 0) {
    attach_random(*model, [](const std::string& name) { return name == "lm_head"; });
    const at::NoGradGuard no_grad;
    for (const Parameter& parameter : parameters_of(*model)) parameter.tensor.mul_(noise);
  }
  CausalLM& lent = *model;
  return torch_teacher(lent, std::move(model), {}, {}, "tiny");
}

TEST(TeacherError, IsNoneForTheSameFileAndGrowsWithTheDifference) {
  const std::vector<std::vector<int32_t>> documents = {{1, 2, 3, 4, 5}, {}, {6, 7, 8}};
  const auto reference = tiny_teacher(0);
  const TeacherError same = teacher_error(*tiny_teacher(0), *reference, documents);
  EXPECT_EQ(same.positions, 8);
  EXPECT_NEAR(same.mean_kl, 0, 1e-7);
  EXPECT_EQ(same.agreement, 1);
  const TeacherError near = teacher_error(*tiny_teacher(0.3), *reference, documents);
  const TeacherError far = teacher_error(*tiny_teacher(2), *reference, documents);
  EXPECT_GT(near.mean_kl, 1e-6);
  EXPECT_GT(far.mean_kl, near.mean_kl);
  EXPECT_GE(far.p99_kl, far.mean_kl);
  EXPECT_LE(far.agreement, near.agreement);
  EXPECT_EQ(far.to_json()["positions"], 8);
}

}  // namespace
}  // namespace retort
