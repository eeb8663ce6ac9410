// On-policy batches: the student's answers in place of the recorded ones, drawn by lambda, the same after a resume.
#include "trainer/on_policy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "tests/core/support.h"
#include "tests/models/tiny.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"

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

/// Repeats the prompt, and says which adapter it was opened with.
class EchoModel final : public ServedModel {
 public:
  explicit EchoModel(int32_t adapter) : adapter_(adapter) {}
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
    std::vector<int32_t> ids(prompt.begin(), prompt.end());
    ids.push_back(adapter_);
    return says(std::move(ids), true);
  }
  int64_t memory_bytes() const override { return 0; }

 private:
  int32_t adapter_;
};

/// A student whose adapter is one number, which "training" counts up.
struct CountedStudent {
  std::unique_ptr<CausalLM> model = tiny_model("grouped", at::kFloat);
  std::shared_ptr<ObjectiveState> state = std::make_shared<ObjectiveState>();
  AdapterOptions options;
  int opened = 0;
  Continue go_on;

  CountedStudent() {
    options.target_modules = {.expression = "", .names = {"q_proj"}};
    attach(*model, options, 1);
    become(0);
    go_on = served_continuations(
        *model,
        [this] {
          ++opened;
          return std::make_unique<EchoModel>(adapter());
        },
        0.9, 3, state);
  }
  void become(int number) const {
    for (const Parameter& p : trainable_parameters(*model)) p.tensor.detach().fill_(number);
  }
  int32_t adapter() const {
    return static_cast<int32_t>(trainable_parameters(*model)[0].tensor.detach().max().item<float>());
  }
  /// What answers the prompts [first, last), the adapter changing after each.
  std::vector<int32_t> answered(int first, int last) const {
    std::vector<int32_t> by;
    for (int i = first; i < last; ++i) {
      const std::vector<int32_t> said = go_on(std::vector<int32_t>{7}, 4, 1).ids;
      EXPECT_EQ(said.front(), 7);
      by.push_back(said.back());
      EXPECT_EQ(adapter(), i) << "the trained adapter stays on the model";
      become(i + 1);
    }
    return by;
  }
};

TEST(OnPolicy, TheStudentIsServedAnewEverySoManyPrompts) {
  const CountedStudent student;
  EXPECT_EQ(student.answered(0, 7), (std::vector<int32_t>{0, 0, 0, 3, 3, 3, 6}));
  EXPECT_EQ(student.opened, 3);
}

TEST(OnPolicy, AResumedRunIsAnsweredByTheAdapterThatWasServed) {
  const auto folder = fresh_folder("on-policy-resume");
  const FakeData data(4);
  const CountedStudent whole;
  const std::vector<int32_t> expected = whole.answered(0, 12);
  for (const int saved : {1, 2, 3, 5}) {
    const auto path = folder / std::to_string(saved);
    const CountedStudent killed, resumed;
    killed.answered(0, saved);
    const auto optimizer = [](const CountedStudent& of) {
      return Optimizer(trainable_parameters(*of.model), TrainOptions{}, 1);
    };
    const auto save_adapter = [&](const std::filesystem::path& to) {
      save_peft(to, *killed.model, killed.options, {});
    };
    save_checkpoint(path, optimizer(killed), Loader(data, 1), {}, {}, killed.state.get(), save_adapter);
    Optimizer again = optimizer(resumed);
    Loader loader(data, 1);
    load_checkpoint(path, again, loader, {}, resumed.state.get());
    EXPECT_EQ(resumed.answered(saved, 12), std::vector<int32_t>(expected.begin() + saved, expected.end())) << saved;
  }
}

TEST(OnPolicy, RefusesACheckpointWhoseServedAdapterDoesNotFit) {
  const CountedStudent student;
  student.state->numbers["on_policy_left"] = 2;
  expect_error(Exit::bad_input, {"objective.safetensors", "q_proj"}, [&] { student.answered(0, 1); });
}

}  // namespace
}  // namespace retort
