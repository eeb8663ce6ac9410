// On-policy batches: the student's answers in place of the recorded ones, drawn by lambda, the same after a resume.
#include "trainer/on_policy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/models/tiny.h"

namespace retort {
namespace {

/// Two documents with a prompt of 2 and 3 tokens, and one that is trained from its first token on.
Batch batch_of_three() {
  return {at::tensor({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, at::kLong),
          at::tensor({-1, 3, 4, -1, -1, -1, 8, 9, -1, 11, -1}, at::kLong),
          {0, 4, 9, 11}};
}

Generated says(std::vector<int32_t> ids, bool stopped) {
  Generated generated;
  generated.ids = std::move(ids);
  generated.stopped = stopped;
  return generated;
}

TEST(OnPolicy, AnswersTakeTheRecordedOnesPlace) {
  std::vector<std::vector<int32_t>> prompts;
  const Continue go_on = [&](std::span<const int32_t> prompt, int64_t limit, uint64_t) {
    EXPECT_EQ(limit, 7);
    prompts.emplace_back(prompt.begin(), prompt.end());
    return prompts.size() == 1 ? says({20, 21}, true) : says({22}, false);
  };
  const Batch own = own_answers(batch_of_three(), go_on, 7, 1);
  EXPECT_EQ(prompts, (std::vector<std::vector<int32_t>>{{1, 2}, {5, 6, 7}}));
  EXPECT_EQ(own.offsets, (std::vector<int64_t>{0, 5, 9, 11}));
  EXPECT_TRUE(own.ids.equal(at::tensor({1, 2, 20, 21, 4, 5, 6, 7, 22, 10, 11}, at::kLong))) << own.ids;
  EXPECT_TRUE(own.labels.equal(at::tensor({-1, 20, 21, 4, -1, -1, -1, 22, -1, 11, -1}, at::kLong))) << own.labels;
}

TEST(OnPolicy, LambdaDrawsBatchesAndAResumeGoesOn) {
  const auto model = tiny_model("grouped", at::kFloat);
  std::string drawn;
  std::vector<uint64_t> seeds;
  const Continue go_on = [&](std::span<const int32_t>, int64_t, uint64_t seed) {
    seeds.push_back(seed);
    return says({1}, false);
  };
  const Objective recorded = [&](CausalLM&, const Batch&, std::span<const int64_t>, const ForwardOptions&) {
    drawn += 'r';
    return at::full({}, 5.0);
  };
  const Objective own = [&](CausalLM&, const Batch& batch, std::span<const int64_t>, const ForwardOptions&) {
    drawn += 'o';
    return (batch.labels >= 0).sum().to(at::kFloat);  // 3 trained tokens where 5 are expected
  };
  auto run = [&](double lambda, int batches, const std::shared_ptr<ObjectiveState>& state) {
    const Objective objective = on_policy_objective(recorded, own, go_on, {.lambda = lambda}, state);
    for (int i = 0; i < batches; ++i)
      EXPECT_EQ(objective(*model, batch_of_three(), {}, {}).item<double>(), 5) << "scaled to what the loop divides by";
  };
  run(0, 5, std::make_shared<ObjectiveState>());
  EXPECT_EQ(drawn, "rrrrr");
  drawn.clear();
  run(1, 5, std::make_shared<ObjectiveState>());
  EXPECT_EQ(drawn, "ooooo");
  drawn.clear(), seeds.clear();
  run(0.5, 200, std::make_shared<ObjectiveState>());
  const std::string whole = drawn;
  const auto whole_seeds = seeds;
  EXPECT_NEAR(static_cast<double>(std::count(whole.begin(), whole.end(), 'o')), 100, 25);
  drawn.clear(), seeds.clear();
  const auto state = std::make_shared<ObjectiveState>();
  run(0.5, 90, state);
  run(0.5, 110, state);
  EXPECT_EQ(drawn, whole);
  EXPECT_EQ(seeds, whole_seeds);
}

/// Counts how often it is opened.
class EchoModel final : public ServedModel {
 public:
  int64_t vocab() const override { return 100; }
  const llama_model* model() const override { return nullptr; }
  at::Tensor logits(std::span<const int32_t>, std::span<const int64_t>) override { return {}; }
  void logits(const std::vector<std::vector<int32_t>>&, const std::vector<std::vector<int64_t>>&,
              const std::function<void(size_t, const at::Tensor&)>&) override {}
  void run(std::span<const ServedRequest>, const std::function<void(size_t, const at::Tensor&)>&,
           const std::function<void(size_t, const Generated&)>&) override {}
  void read(const std::vector<std::vector<int32_t>>&,
            const std::function<void(size_t, const at::Tensor&, const at::Tensor&)>&) override {}
  Generated generate(std::span<const int32_t> prompt, int64_t, double temperature, uint64_t,
                     const std::function<void(int32_t)>&) override {
    EXPECT_EQ(temperature, 0.9);
    return says({prompt.begin(), prompt.end()}, true);
  }
  int64_t memory_bytes() const override { return 0; }
};

TEST(OnPolicy, TheStudentIsServedAnewEverySoManyPrompts) {
  int opened = 0;
  const Continue go_on = served_continuations(
      [&] {
        ++opened;
        return std::make_unique<EchoModel>();
      },
      0.9, 3);
  for (int32_t i = 0; i < 7; ++i) EXPECT_EQ(go_on(std::vector<int32_t>{i}, 4, 1).ids, std::vector<int32_t>{i});
  EXPECT_EQ(opened, 3);
}

}  // namespace
}  // namespace retort
