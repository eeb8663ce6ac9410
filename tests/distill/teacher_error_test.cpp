// A teacher against its file of higher precision.
#include "distill/teacher_error.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

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

/// The same probabilities after every position.
class Fixed final : public Teacher {
 public:
  explicit Fixed(const at::Tensor& probabilities) : row_(probabilities.log()) {}
  const TeacherIdentity& identity() const override { return identity_; }
  int64_t vocab() const override { return row_.size(0); }
  void logits(const std::vector<std::vector<int32_t>>&, const std::vector<std::vector<int64_t>>& wanted,
              const std::function<void(size_t, const at::Tensor&)>& each) override {
    for (size_t d = 0; d < wanted.size(); ++d) each(d, row_.repeat({static_cast<int64_t>(wanted[d].size()), 1}));
  }

 private:
  at::Tensor row_;
  TeacherIdentity identity_;
};

TEST(TeacherError, IsTheDivergenceFromTheReference) {
  Fixed teacher(at::tensor({0.25F, 0.75F, 0.0F})), reference(at::tensor({0.5F, 0.5F, 0.0F}));
  const TeacherError error = teacher_error(teacher, reference, {{1, 2}});
  EXPECT_NEAR(error.mean_kl, 0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75), 1e-6);
  EXPECT_NEAR(error.p99_kl, error.mean_kl, 1e-9);
  Fixed sure(at::tensor({0.1F, 0.9F, 0.0F}));
  EXPECT_EQ(teacher_error(sure, teacher, {{1, 2}}).agreement, 1);
}

}  // namespace
}  // namespace retort
