#include "trainer/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "trainer/schedule.h"

namespace retort {
namespace {

TrainOptions options_from(const std::string& yaml) { return from_yaml<TrainOptions>(Yaml::parse(yaml, "test.yaml")); }

at::Tensor fill(const std::vector<int64_t>& shape, const std::function<double(int64_t)>& value) {
  at::Tensor out = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < out.numel(); ++i) out.data_ptr<double>()[i] = value(i);
  return out.to(at::kFloat);
}

}  // namespace

TEST(Schedule, FactorsEqualTransformers) {
  const Json golden = read_json(RETORT_GOLDEN "/schedules.json");
  int compared = 0;
  for (const Json& c : golden["cases"]) {
    const int64_t steps = c["steps"];
    TrainOptions options;
    options.lr_scheduler_type = c["type"];
    options.learning_rate = 1;
    options.warmup_steps = c["warmup_steps"].get<int64_t>();
    options.min_lr_ratio = c["min_lr_ratio"];
    options.decay_ratio = c["decay_steps"].get<double>() / double(steps);
    const Schedule schedule = make_schedule(options, steps);
    for (int64_t s = 0; s < steps; ++s, ++compared)
      EXPECT_NEAR(schedule.rate(s), c["factors"][size_t(s)].get<double>(), 1e-12) << c["type"] << " step " << s;
  }
  EXPECT_EQ(compared, 156);
}

TEST(Schedule, WarmupRatioRoundsUpAndWarmupStepsReplacesIt) {
  TrainOptions options;
  options.warmup_ratio = 0.05;
  EXPECT_EQ(make_schedule(options, 187).warmup_steps, 10);
  options.warmup_ratio = 0;
  options.warmup_steps = 3;
  EXPECT_EQ(make_schedule(options, 187).warmup_steps, 3);
  options.warmup_steps = 188;
  EXPECT_THROW(make_schedule(options, 187), Error);
}

TEST(Optimizer, ClippedAdamWEqualsTorchForTenSteps) {
  const Json golden = read_json(RETORT_GOLDEN "/adamw.json");
  TrainOptions options;
  options.adam_beta1 = golden["beta1"];
  options.adam_beta2 = golden["beta2"];
  options.adam_epsilon = golden["epsilon"];
  options.weight_decay = golden["weight_decay"];
  std::vector<Parameter> parameters;
  for (size_t k = 0; k < golden["shapes"].size(); ++k)
    parameters.push_back({fmt::format("p{}", k), fill(golden["shapes"][k].get<std::vector<int64_t>>(), [&](int64_t i) {
                                                   return std::sin(0.37 * double(i) + double(k));
                                                 }).requires_grad_(true)});
  Optimizer optimizer(parameters, options);
  for (int64_t step = 0; step < 10; ++step) {
    optimizer.zero_grad();
    for (size_t k = 0; k < parameters.size(); ++k) {
      const double size = step % 3 == 0 ? 2.0 : 0.05;
      parameters[k].tensor.mutable_grad().copy_(fill(parameters[k].tensor.sizes().vec(), [&](int64_t i) {
        return size * std::cos(0.11 * double(i) * double(step + 1) + double(k));
      }));
    }
    const double norm = optimizer.clip(golden["max_grad_norm"]);
    EXPECT_NEAR(norm, golden["norms"][size_t(step)].get<double>(), 1e-6 * norm);
    optimizer.step(golden["learning_rate"].get<double>() * (1 - 0.05 * double(step)));
    for (size_t k = 0; k < parameters.size(); ++k) {
      const auto expected = golden["parameters"][size_t(step)][k].get<std::vector<double>>();
      const at::Tensor ours = parameters[k].tensor.detach().flatten().to(at::kDouble);
      for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_NEAR(ours.data_ptr<double>()[i], expected[i], 2e-7)
            << "step " << step << " parameter " << k << " at " << i;
    }
  }
}

TEST(Optimizer, ZeroGradKeepsTheBuffers) {
  std::vector<Parameter> parameters{{"p", at::ones({3}).requires_grad_(true)}};
  Optimizer optimizer(parameters, {});
  const void* buffer = parameters[0].tensor.grad().data_ptr();
  (parameters[0].tensor * 2).sum().backward();
  EXPECT_EQ(parameters[0].tensor.grad().data_ptr(), buffer);
  EXPECT_EQ(optimizer.grad_norms()[0], std::sqrt(12.0f));
  optimizer.zero_grad();
  EXPECT_EQ(parameters[0].tensor.grad().data_ptr(), buffer);
  EXPECT_EQ(optimizer.grad_norms()[0], 0);
}

TEST(Optimizer, NonFiniteGradientsAreReportedNotScaled) {
  std::vector<Parameter> parameters{{"p", at::ones({2}).requires_grad_(true)},
                                    {"q", at::ones({1}).requires_grad_(true)}};
  Optimizer optimizer(parameters, {});
  parameters[0].tensor.mutable_grad().fill_(3);
  parameters[1].tensor.mutable_grad().fill_(std::nanf(""));
  EXPECT_TRUE(std::isnan(optimizer.clip(1)));
  EXPECT_EQ(parameters[0].tensor.grad()[0].item<float>(), 3);
}

TEST(Optimizer, NothingToTrainIsAnError) { EXPECT_THROW(Optimizer({}, {}), Error); }

TEST(TrainOptions, ReadsHuggingFaceNames) {
  const auto options =
      options_from("{num_train_epochs: 2, max_steps: null, learning_rate: 5.0e-4, warmup_ratio: 0.05}");
  EXPECT_EQ(options.num_train_epochs, 2);
  EXPECT_FALSE(options.max_steps);
  EXPECT_EQ(options.learning_rate, 5e-4);
}

TEST(TrainOptions, PeersNamesAreErrorsThatSayOurs) {
  for (const auto& [yaml, ours] : std::vector<std::pair<std::string, std::string>>{
           {"{lr: 1e-4}", "learning_rate"},
           {"{epochs: 3}", "num_train_epochs"},
           {"{per_device_train_batch_size: 4}", "micro_batch_size"},
           {"{optim: adamw_torch}", "optimizer"},
           {"{evals_per_epoch: 4}", "eval_steps"},
           {"{dtype: bf16}", "model.dtype"},
           {"{learning_rat: 1e-4}", "learning_rate"},
           {"{lr_scheduler_type: cosin}", "cosine"},
           {"{micro_batch_size: 0}", "micro_batch_size"},
           {"{adam_beta2: 1.0}", "adam_beta2"},
           {"{warmup_steps: 3, warmup_ratio: 0.1}", "warmup_steps"},
           {"{lr_scheduler_type: constant, min_lr_ratio: 0.1}", "min_lr_ratio"},
           {"{early_stopping_patience: 2}", "eval_steps"}}) {
    try {
      options_from(yaml);
      ADD_FAILURE() << yaml << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      EXPECT_NE(std::string(error.what()).find(ours), std::string::npos) << error.what();
    }
  }
}

TEST(TrainOptions, ValidationKeysNeedValidationData) {
  EXPECT_NO_THROW(check_validation(options_from("{}"), false));
  EXPECT_NO_THROW(check_validation(options_from("{eval_steps: 5}"), true));
  EXPECT_THROW(check_validation(options_from("{eval_steps: 5}"), false), Error);
  EXPECT_THROW(check_validation(options_from("{load_best_model_at_end: true}"), false), Error);
}

}  // namespace retort
