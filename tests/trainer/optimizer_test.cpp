#include "trainer/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"
#include "trainer/schedule.h"

namespace retort {
namespace {

TrainOptions options_from(const std::string& yaml) { return from_yaml<TrainOptions>(Yaml::parse(yaml, "test.yaml")); }

at::Tensor fill(const std::vector<int64_t>& shape, const std::function<double(int64_t)>& value) {
  at::Tensor out = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < out.numel(); ++i) out.data_ptr<double>()[i] = value(i);
  return out.to(at::kFloat);
}

/// Each train block is an error of usage that says the words beside it.
void expect_refused(const std::vector<std::pair<std::string, std::string>>& cases) {
  for (const auto& [yaml, words] : cases) {
    try {
      options_from(yaml);
      ADD_FAILURE() << yaml << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage) << yaml;
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << yaml << "\n" << error.what();
    }
  }
}

std::vector<Parameter> parameters_of(const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<Parameter> parameters;
  for (const auto& shape : shapes)
    parameters.push_back({fmt::format("p{}.lora_B.weight", parameters.size()), at::randn(shape).requires_grad_(true)});
  return parameters;
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
  expect_refused({{"{lr: 1e-4}", "learning_rate"},
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
                  {"{early_stopping_patience: 2}", "eval_steps"}});
}

TEST(TrainOptions, ValidationKeysNeedValidationData) {
  EXPECT_NO_THROW(check_validation(options_from("{}"), false));
  EXPECT_NO_THROW(check_validation(options_from("{eval_steps: 5}"), true));
  EXPECT_THROW(check_validation(options_from("{eval_steps: 5}"), false), Error);
  EXPECT_THROW(check_validation(options_from("{load_best_model_at_end: true}"), false), Error);
}

/// Every case of make_optimizers.py: the recipe's train block against the peer's optimizer with the same options.
class PeerCase : public testing::TestWithParam<size_t> {
 public:
  static const Json& golden() {
    static const Json json = read_json(RETORT_GOLDEN "/optimizers.json");
    return json;
  }
  static std::string name(const testing::TestParamInfo<size_t>& info) { return golden()["cases"][info.param]["name"]; }
};

TEST_P(PeerCase, TenStepsEqualThePeers) {
  const Json& c = golden()["cases"][GetParam()];
  const std::string name = c["name"];
  const auto expected = SafetensorsFile::open(RETORT_GOLDEN "/optimizers.safetensors");
  const TrainOptions options = options_from(c["train"].dump());
  std::vector<Parameter> parameters;
  for (const Json& p : c["parameters"]) {
    const auto k = static_cast<double>(parameters.size());
    const auto start = fill(p["shape"], [&](int64_t i) { return std::sin(0.37 * double(i) + k); });
    parameters.push_back({p["name"], start.requires_grad_(true)});
  }
  Optimizer optimizer(parameters, options);
  // Muon multiplies matrices in bf16, whose rounding depends on the processor.
  const double tolerance = options.optimizer == "muon" ? 1e-4 : 1e-6;
  size_t compared = 0;
  const auto compare = [&](const std::string& key, const at::Tensor& ours) {
    if (!expected->find(key)) return;
    ++compared;
    const at::Tensor theirs = expected->tensor(key);
    ASSERT_EQ(ours.scalar_type(), theirs.scalar_type()) << key;
    const bool codes = theirs.scalar_type() == at::kByte || key.find(".absmax") != std::string::npos;
    if (codes) {
      EXPECT_TRUE(ours.equal(theirs)) << key << ": " << ours.ne(theirs).sum().item<int64_t>() << " differ";
    } else {
      const double size = std::max(0.1, theirs.abs().max().item<double>());  // a moment of both signs may end near zero
      EXPECT_LE((ours - theirs).abs().max().item<double>(), tolerance * size) << key;
    }
  };
  for (int64_t step = 0; step < golden()["steps"]; ++step) {
    optimizer.zero_grad();
    for (size_t k = 0; k < parameters.size(); ++k) {
      if (parameters[k].name == "zero" && step < 2) continue;
      parameters[k].tensor.mutable_grad().copy_(fill(parameters[k].tensor.sizes().vec(), [&](int64_t i) {
        return std::pow(10.0, -double((i + int64_t(k)) % 6)) *
               std::cos(0.11 * double(i) * double(step + 1) + double(k));
      }));
    }
    optimizer.step(options.learning_rate * (1 - 0.05 * double(step)));
    const std::string prefix = fmt::format("{}/{}/", name, step + 1);
    for (const Parameter& p : optimizer.parameters()) compare(prefix + p.name, p.tensor.detach());
    for (const Parameter& s : optimizer.state()) compare(prefix + s.name, s.tensor);
  }
  size_t stored = 0;
  for (const auto& entry : expected->entries()) stored += entry.name.starts_with(name + "/");
  EXPECT_EQ(compared, stored);
}

INSTANTIATE_TEST_SUITE_P(Optimizer, PeerCase, testing::Range<size_t>(0, PeerCase::golden()["cases"].size()),
                         PeerCase::name);

TEST(Optimizer, EveryKindResumesBitEqual) {
  for (const OptimizerKind* kind : optimizer_kinds()) {
    const std::string name = kind->name;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} {}", name, c10::toString(dtype)));
      TrainOptions options = options_from(fmt::format("{{optimizer: {}, learning_rate: 0.003}}", name));
      options.max_steps = 9;
      options.save_steps = 3;
      options.weight_decay = 0.01;
      options.loraplus_lr_ratio = 4;
      if (name == "sgd") options.optim_args.momentum = 0.9;
      const auto train_in = [&](const std::filesystem::path& folder, bool resume, int64_t stop_after) {
        FakeModel model(dtype, /*dropout=*/0.2, /*rank=*/520);  // 4,160 numbers: states of 8 bits
        FakeData data(31);
        TrainRun run{.folder = folder, .seed = 11, .resume = resume};
        run.save_adapter = [&](const std::filesystem::path& path) { model.save(path); };
        train(model, model.parameters(), data, nullptr, cross_entropy_objective(), options, run,
              {.on_step = [&](int64_t step) {
                if (step == stop_after) throw std::runtime_error("stopped here");
              }});
      };
      const auto whole = fresh_folder("whole"), parts = fresh_folder("parts");
      train_in(whole, false, 0);
      EXPECT_THROW(train_in(parts, false, 5), std::runtime_error);
      EXPECT_EQ(list_checkpoints(parts / "checkpoints").back().step, 3);
      train_in(parts, true, 0);
      for (const char* file : {"adapter/adapter_model.safetensors", "optimizer.safetensors"})
        EXPECT_EQ(read_text(list_checkpoints(whole / "checkpoints").back().path / file),
                  read_text(list_checkpoints(parts / "checkpoints").back().path / file))
            << file;
    }
  }
}

TEST(Optimizer, BytesAreThoseOfTheState) {
  const std::vector<Parameter> parameters = parameters_of({{64, 300}, {300, 64}, {7}});
  const int64_t numbers = 2 * 64 * 300 + 7;
  std::map<std::string, int64_t> bytes;
  for (const std::string& name : optimizer_names()) {
    const TrainOptions options = options_from(fmt::format("{{optimizer: {}}}", name));
    bytes[name] = optimizer_state_bytes(parameters, options);
    const Optimizer optimizer(parameters, options);
    int64_t held = 0;
    for (const Parameter& s : optimizer.state()) held += static_cast<int64_t>(s.tensor.nbytes());
    EXPECT_EQ(bytes[name], held) << name;
    EXPECT_EQ(optimizer.bytes(), held + 4 * numbers) << name;
  }
  EXPECT_EQ(bytes["adamw"], 8 * numbers);
  EXPECT_EQ(bytes["lion"], 4 * numbers);
  EXPECT_EQ(bytes["sgd"], 0);
  EXPECT_EQ(bytes["muon"], 4 * (numbers + 7));
  EXPECT_EQ(bytes["adafactor"], 4 * (2 * (64 + 300) + 7));
  EXPECT_EQ(bytes["adamw_8bit"], 2 * 2 * 64 * 300 + 2 * 2 * 4 * 75 + 8 * 7);  // codes, scales of 75 blocks, f32
  EXPECT_EQ(bytes["paged_adamw"], bytes["adamw"]);
}

TEST(Optimizer, UpdatesOf16BitsKeepTheirMean) {
  // Each of 20 updates is a fortieth of the last bit of 1: rounded to nearest, nothing would ever change.
  const at::Tensor start = at::ones({20000}, at::kBFloat16);
  std::vector<Parameter> parameters{{"p", start.clone().requires_grad_(true)}};
  Optimizer optimizer(parameters, options_from("{optimizer: sgd}"), 3);
  const double update = 0.0078125 / 40;
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    parameters[0].tensor.mutable_grad().fill_(-1);
    optimizer.step(update);
  }
  const at::Tensor end = parameters[0].tensor.detach().to(at::kDouble);
  const double moved = (end - 1).mean().item<double>();
  // The mean of 20,000 numbers that are 1 or 1 + 2^-7 with a chance of about a half.
  EXPECT_NEAR(moved, 20 * update, 5 * 0.0078125 / 2 / std::sqrt(20000.0));
}

TEST(Optimizer, NumbersThatFitAreNotMovedByRounding) {
  std::vector<Parameter> parameters{{"p", at::randn({5000}).to(at::kHalf).requires_grad_(true)}};
  const at::Tensor start = parameters[0].tensor.detach().clone();
  Optimizer optimizer(parameters, options_from("{optimizer: sgd}"));
  optimizer.step(1);
  EXPECT_TRUE(parameters[0].tensor.detach().equal(start));
}

/// Paged state waits in pinned host memory, and the updates are those of state on the device.
TEST(DeviceOptimizer, PagedStateWaitsOnTheHostAndChangesNoBit) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device: run bench/device on a machine that has one";
  for (const std::string name : {"adamw", "adamw_8bit", "lion"}) {
    std::vector<std::vector<at::Tensor>> results;
    for (const std::string& kind : {name, "paged_" + name}) {
      at::manual_seed(3);
      std::vector<Parameter> parameters;
      for (const Parameter& p : parameters_of({{64, 96}, {4096}}))
        parameters.push_back({p.name, p.tensor.detach().cuda().requires_grad_(true)});
      TrainOptions options;
      options.optimizer = kind;
      Optimizer optimizer(parameters, options);
      for (const Parameter& state : optimizer.state()) {
        EXPECT_EQ(state.tensor.is_cpu(), is_paged(kind)) << state.name;
        EXPECT_EQ(state.tensor.is_pinned(), is_paged(kind)) << state.name;
      }
      for (int64_t step = 0; step < 3; ++step) {
        for (const Parameter& p : parameters) p.tensor.mutable_grad().copy_(at::sin(p.tensor.detach() * (1.0 + step)));
        optimizer.step(1e-2);
      }
      std::vector<at::Tensor>& result = results.emplace_back();
      for (const Parameter& p : parameters) result.push_back(p.tensor.detach().cpu());
    }
    for (size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << name << i;
  }
}

TEST(Optimizer, LoraPlusNeedsAB) {
  std::vector<Parameter> parameters{{"model.layers.0.mlp.down_proj.ia3_l", at::ones({1, 4}).requires_grad_(true)}};
  try {
    Optimizer(parameters, options_from("{loraplus_lr_ratio: 16}"));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    EXPECT_NE(std::string(error.what()).find("loraplus_lr_ratio"), std::string::npos) << error.what();
  }
}

TEST(TrainOptions, OptionsOfAnotherOptimizerAreErrorsThatSayWhose) {
  expect_refused({{"{optimizer: adam}", "did you mean adamw"},
                  {"{optimizer: paged_lionn}", "paged_lion"},
                  {"{optimizer: sgd, adam_beta2: 0.9}", "adam_beta2"},
                  {"{optimizer: lion, adam_epsilon: 1e-6}", "those that do: adamw, adamw_8bit, muon"},
                  {"{optim_args: {momentum: 0.9}}", "those that do: muon, sgd"},
                  {"{optimizer: adafactor, optim_args: {beta2_decay: -0.8}}", "decay_rate"},
                  {"{optimizer: muon, optim_args: {momentum: 1.0}}", "momentum"},
                  {"{optimizer: muon, optim_args: {adjust_lr_fn: moonshot}}", "match_rms_adamw"},
                  {"{optimizer: sgd, optim_args: {nesterov: true}}", "momentum above 0"},
                  {"{momentum: 0.9}", "optim_args.momentum"},
                  {"{optim_args: {momentun: 0.9}}", "momentum"},
                  {"{loraplus_lr_ratio: 0}", "loraplus_lr_ratio"}});
}

}  // namespace retort
