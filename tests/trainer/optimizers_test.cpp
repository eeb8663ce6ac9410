// The kinds of optimizers: against their peers, over a resume, in memory, in 16 bits, in the recipe.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"
#include "trainer/optimizer.h"

namespace retort {
namespace {

TrainOptions options_from(const std::string& yaml) { return from_yaml<TrainOptions>(Yaml::parse(yaml, "test.yaml")); }

at::Tensor fill(const std::vector<int64_t>& shape, const std::function<double(int64_t)>& value) {
  at::Tensor out = at::empty(shape, at::kDouble);
  for (int64_t i = 0; i < out.numel(); ++i) out.data_ptr<double>()[i] = value(i);
  return out.to(at::kFloat);
}

std::vector<Parameter> parameters_of(const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<Parameter> parameters;
  for (const auto& shape : shapes)
    parameters.push_back({fmt::format("p{}.lora_B.weight", parameters.size()), at::randn(shape).requires_grad_(true)});
  return parameters;
}

}  // namespace

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
  for (const auto& [yaml, part] : std::vector<std::pair<std::string, std::string>>{
           {"{optimizer: adam}", "did you mean adamw"},
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
           {"{loraplus_lr_ratio: 0}", "loraplus_lr_ratio"}}) {
    try {
      options_from(yaml);
      ADD_FAILURE() << yaml << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage) << yaml;
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << yaml << "\n" << error.what();
    }
  }
}

}  // namespace retort
