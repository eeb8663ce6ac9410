// Objectives against teachers, on the small random Llama: parts, schedules, hidden states, metrics, resuming.
#include "trainer/distillation.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "adapters/peft.h"
#include "core/error.h"
#include "tests/trainer/divergence.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"
#include "trainer/hidden_states.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

std::shared_ptr<CausalLM> tiny(const std::string& variant, at::ScalarType dtype = at::kDouble) {
  return CausalLM::load(*Checkpoint::open(RETORT_GOLDEN "/tiny_llama/" + variant),
                        {.base = BaseForm::dense, .dtype = dtype});
}

/// A model with LoRA on all its layers, B not zero.
struct Student {
  std::shared_ptr<CausalLM> model;
  AdapterOptions adapter;
  std::vector<Parameter> parameters;
  explicit Student(at::ScalarType dtype = at::kDouble) : model(tiny("grouped", dtype)) {
    adapter.r = 4;
    attach(*model, adapter, 7);
    parameters = trainable_parameters(*model);
    uint64_t seed = 1;
    for (Parameter& p : parameters) p.tensor.detach().copy_(normal(p.tensor.sizes(), seed++, dtype) / 5);
  }
};

/// A model's logits at the trained tokens.
TargetSource logits_of(std::shared_ptr<CausalLM> teacher) {
  return [teacher](const Batch& batch, std::span<const int64_t>) {
    const at::NoGradGuard no_grad;
    const at::Tensor rows = at::nonzero(batch.labels >= 0).squeeze(1);
    return dense_targets(teacher->logits(teacher->hidden(batch).index_select(0, rows)));
  };
}

const FakeData& data() {
  static const FakeData rows(12);
  return rows;
}
const std::vector<int64_t> some{0, 3, 5};

double value_of(const Objective& objective, Student& student) {
  return objective(*student.model, data().batch(some), some, {.training = true}).item<double>();
}

TEST(Distillation, SeveralTeachersAndTheCrossEntropyAreWeighted) {
  Student student;
  const auto one = logits_of(tiny("window")), two = logits_of(tiny("biases"));
  const auto state = std::make_shared<ObjectiveState>();
  const auto part = [&](const TargetSource& source, const char* loss, double weight, const char* name) {
    DivergenceOptions options = divergence(loss, 0.5, 2);
    options.kd_weight = weight;
    return divergence_part(source, options, state, name);
  };
  const auto alone = [&](ObjectivePart only) { return value_of(sum_of({std::move(only)}), student); };
  const double first = alone(part(one, "forward_kl", 1, "a")), second = alone(part(two, "jsd", 1, "b")),
               cross_entropy = alone(cross_entropy_part(1));
  EXPECT_GT(first, 1e-3);
  EXPECT_GT(second, 1e-3);
  state->sums.clear();
  const Objective all =
      sum_of({part(one, "forward_kl", 0.7, "a"), part(two, "jsd", 0.2, "b"), cross_entropy_part(0.1)});
  EXPECT_NEAR(value_of(all, student), 0.7 * first + 0.2 * second + 0.1 * cross_entropy, 1e-9);
  EXPECT_NEAR(state->sums["a.divergence"] * 4, first, 1e-9);
  EXPECT_NEAR(state->sums["b.divergence"] * 4, second, 1e-9);
  EXPECT_NEAR(state->sums["b.cross_entropy"], cross_entropy, 1e-9);
}

TEST(Distillation, AModelAgreesWithItself) {
  const auto model = tiny("grouped");
  const DivergenceSums sums = measure_divergence(*model, data(), logits_of(model), divergence("forward_kl"), 5);
  EXPECT_NEAR(sums.divergence, 0, 1e-10);
  EXPECT_EQ(sums.agreements, static_cast<double>(sums.rows));
  int64_t trained = 0;
  for (int64_t w = 0; w < data().windows(); ++w) trained += data().window_trained(w);
  EXPECT_EQ(sums.rows, trained);
}

TEST(Distillation, DivergenceIsReportedByPosition) {
  Batch batch{.ids = at::zeros({120}, at::kLong), .labels = at::full({120}, -1, at::kLong), .offsets = {0, 20, 120}};
  for (const int64_t t : {3, 19, 20, 35, 36, 84}) batch.labels[t] = 1;  // positions 3, 19, 0, 15, 16, 64
  const at::Tensor measured = at::tensor({1., 2., 4., 8., 16., 32.}, at::kDouble), zero = at::zeros_like(measured);
  DivergenceSums sums;
  sums.add({measured, zero, zero, zero, zero}, batch);
  EXPECT_EQ(sums.rows_at, (std::array<int64_t, 5>{3, 2, 1, 0, 0}));
  EXPECT_EQ(sums.divergence_at, (std::array<double, 5>{13, 18, 32, 0, 0}));
  EXPECT_EQ(sums.to_json()["by_position"][2], Json::parse(R"({"from": 64, "tokens": 1, "divergence": 32.0})"));
}

TEST(Distillation, TaidMovesItsTargetToTheTeacher) {
  const TaidSchedule schedule{.t = "t", .t_start = 0.4, .alpha = 0.1, .momentum = 0.5};
  std::map<std::string, double> numbers{{"t", 0.4}};
  schedule.update(numbers, 0.1, 2.0);  // the first loss has nothing to be compared with
  EXPECT_NEAR(numbers["t"], 0.4 + 0.6 * 0.1, 1e-12);
  schedule.update(numbers, 0.1, 1.0);  // halved: m = 0.25, t + 0.1 sigmoid(m) (1 - t)
  const double t = 0.46 + 0.1 / (1 + std::exp(-0.25)) * 0.54;
  EXPECT_NEAR(numbers["t"], t, 1e-12);
  schedule.update(numbers, 0.1, 1.5);  // m = 0.25 / 2 - 0.5 / 2
  EXPECT_NEAR(numbers["t"], t + 0.1 / (1 + std::exp(0.125)) * (1 - t), 1e-12);
  schedule.update(numbers, 1, 1.5);
  EXPECT_EQ(numbers["t"], 1);
}

TEST(Distillation, TaidNeverGoesBackAlsoAfterAResume) {
  const TaidSchedule schedule{.t = "t", .t_start = 0.4, .alpha = 0.05};
  std::map<std::string, double> numbers{{"t", 0.4}}, saved;
  const at::Tensor losses = normal({200}, 3).exp();  // any that may come
  const auto update = [&](std::map<std::string, double>& to, int64_t i) {
    schedule.update(to, static_cast<double>(i + 1) / 200, losses[i].item<double>());
  };
  for (int64_t i = 0; i < 200; ++i) {
    if (i == 77) saved = numbers;  // what a checkpoint holds
    const double before = numbers["t"];
    update(numbers, i);
    EXPECT_GE(numbers["t"], before);
    EXPECT_LE(numbers["t"], 1);
  }
  EXPECT_EQ(numbers["t"], 1);
  for (int64_t i = 77; i < 200; ++i) update(saved, i);
  EXPECT_EQ(saved, numbers);
  // A run that goes on with more steps is at a smaller part of the way.
  std::map<std::string, double> longer{{"t", 0.9}};
  schedule.update(longer, 0.1, 1.0);
  EXPECT_GE(longer["t"], 0.9);
}

double distance(const HiddenStateOptions& options, const at::Tensor& s, const at::Tensor& t) {
  if (options.distance == HiddenStateOptions::Distance::mse) return (s - t).square().mean(1).sum().item<double>();
  const at::Tensor dot = (s * t).sum(1), norms = s.square().sum(1).sqrt() * t.square().sum(1).sqrt();
  return (1 - dot / norms).sum().item<double>();
}

TEST(Distillation, HiddenStatesFollowTheTeachersBlocks) {
  const auto teacher = tiny("window");
  const Batch batch = data().batch(some);
  const at::Tensor rows = at::nonzero(batch.labels >= 0).squeeze(1);
  for (const auto kind : {HiddenStateOptions::Distance::cosine, HiddenStateOptions::Distance::mse})
    for (const bool project : {false, true}) {
      Student student;
      const HiddenStateOptions options{
          .layers = {{0, 1}, {1, 0}}, .distance = kind, .project = project, .weight = 3, .seed = 5};
      const auto state = std::make_shared<ObjectiveState>();
      const Objective objective = sum_of(
          {hidden_states_part(states_of(teacher, options.layers), options, *student.model, teacher->config(), state)},
          student_blocks(options));
      ASSERT_EQ(state->parameters.size(), project ? 2 : 0);

      std::map<int64_t, at::Tensor> own, theirs;
      student.model->hidden(batch, {.after_block = [&](int64_t b, const at::Tensor& x) { own[b] = x.detach(); }});
      teacher->hidden(batch, {.after_block = [&](int64_t b, const at::Tensor& x) { theirs[b] = x; }});
      double want = 0;
      for (size_t i = 0; i < 2; ++i) {
        at::Tensor s = own[options.layers[i].student].index_select(0, rows);
        if (project) s = s.matmul(state->parameters[i].tensor.detach().t());
        want += 3 * distance(options, s, theirs[options.layers[i].teacher].index_select(0, rows)) / 2;
      }
      const at::Tensor loss = objective(*student.model, batch, some, {.training = true});
      EXPECT_NEAR(loss.item<double>(), want, 1e-9);
      loss.backward();

      // The adapters below each block and the projections, by finite differences.
      std::vector<Parameter> all = student.parameters;
      all.insert(all.end(), state->parameters.begin(), state->parameters.end());
      for (size_t i = 0; i < all.size(); i += all.size() / 5) {
        at::Tensor one = all[i].tensor.detach().view(-1).slice(0, 3, 4);
        if (!all[i].tensor.grad().defined()) {
          EXPECT_TRUE(all[i].name.starts_with("lm_head"));
          continue;
        }
        const double got = all[i].tensor.grad().view(-1)[3].item<double>();
        const auto moved = [&](double by) {
          one.add_(by);
          const double value = objective(*student.model, batch, some, {}).item<double>();
          one.sub_(by);
          return value;
        };
        // Differences of so large a sum have its last digits only.
        const double tolerance = 1e-6 * std::max(1.0, std::abs(got)) + 1e-10 * std::abs(want);
        EXPECT_NEAR(got, (moved(2e-6) - moved(-2e-6)) / 4e-6, tolerance) << all[i].name << ", loss " << want;
      }
    }
}

TEST(Distillation, HiddenStatesOfAnotherWidthGoThroughAMatrix) {
  Student student;
  ModelConfig wider = student.model->config();
  wider.dim += 3;
  const Batch batch = data().batch(some);
  const at::Tensor theirs = normal({batch.tokens(), wider.dim}, 4);
  const auto state = std::make_shared<ObjectiveState>();
  const HiddenStateOptions options{.layers = {{0, 1}}};
  const StateSource source = [&](const Batch&, std::span<const int64_t>) { return std::vector<at::Tensor>{theirs}; };
  const Objective objective =
      sum_of({hidden_states_part(source, options, *student.model, wider, state)}, student_blocks(options));
  ASSERT_EQ(state->parameters.size(), 1U);
  EXPECT_EQ(state->parameters[0].tensor.sizes(), (at::IntArrayRef{wider.dim, wider.dim - 3}));
  objective(*student.model, batch, some, {.training = true}).backward();
  EXPECT_GT(state->parameters[0].tensor.grad().abs().max().item<double>(), 0);
}

TEST(Distillation, RefusesBlocksThatAreNotThere) {
  Student student;
  const auto part = [&](std::vector<LayerPair> layers) {
    hidden_states_part({}, {.layers = std::move(layers)}, *student.model, student.model->config(),
                       std::make_shared<ObjectiveState>());
  };
  EXPECT_THROW(part({{2, 0}}), Error);
  EXPECT_THROW(part({{0, 2}}), Error);
  EXPECT_THROW(part({}), Error);
}

/// Everything that an objective may keep, with metrics that span the step at which the run breaks off.
void train_in(const fs::path& folder, bool resume, int64_t break_after) {
  Student student(at::kFloat);
  const auto teacher = tiny("window", at::kFloat);
  TrainRun run{.folder = folder, .seed = 3, .resume = resume};
  run.objective = std::make_shared<ObjectiveState>();
  run.save_adapter = [&](const fs::path& path) { save_peft(path, *student.model, student.adapter, {}); };
  const HiddenStateOptions options{.layers = {{0, 0}}, .project = true};
  const Objective objective =
      sum_of({divergence_part(logits_of(teacher), divergence("taid", 0.4, 1, 0.5), run.objective),
              hidden_states_part(states_of(teacher, options.layers), options, *student.model, teacher->config(),
                                 run.objective)},
             student_blocks(options));
  TrainOptions train_options;
  train_options.micro_batch_size = train_options.gradient_accumulation_steps = 2;
  train_options.max_steps = 7;
  train_options.logging_steps = 3;
  train_options.save_steps = 1;
  train_options.learning_rate = 0.01;
  train(*student.model, student.parameters, data(), nullptr, objective, train_options, run,
        {.on_step = [&](int64_t step) {
          if (step == break_after) throw std::runtime_error("power cut");
        }});
}

TEST(Distillation, ResumesBitEqualWithWhatTheObjectiveKeeps) {
  const auto whole = fresh_folder("distill-whole"), broken = fresh_folder("distill-broken");
  train_in(whole, false, 0);
  EXPECT_THROW(train_in(broken, false, 5), std::runtime_error);
  EXPECT_EQ(list_checkpoints(broken / "checkpoints").back().step, 4);
  train_in(broken, true, 0);
  EXPECT_EQ(metrics_lines(broken), metrics_lines(whole));
  for (const char* file : {"adapter/adapter_model.safetensors", "objective.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(read_text(broken / "checkpoints/step-000007" / file), read_text(whole / "checkpoints/step-000007" / file))
        << file;
  const Json last = parse_json(metrics_lines(whole).back(), "metrics");
  for (const char* key : {"divergence", "cross_entropy", "agreement", "hidden_states"})
    EXPECT_GT(last[key].get<double>(), 0) << key;
  const Json state = read_json(whole / "checkpoints/step-000007/state.json");
  EXPECT_EQ(state["objective"]["numbers"]["taid_t"].get<double>(), 1) << "the last update ends at the teacher";
}

}  // namespace
}  // namespace retort
