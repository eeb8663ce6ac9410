// The loop with a real decoder and real LoRA adapters, on the small random Llama of tests/golden/make_tiny_llama.py.
#include <gtest/gtest.h>

#include "adapters/peft.h"
#include "core/error.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

AdapterOptions adapter_options(double dropout = 0) {
  AdapterOptions options;
  options.r = 4;
  options.lora_alpha = 8;
  options.lora_dropout = dropout;
  return options;
}

struct Tiny {
  std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(RETORT_GOLDEN "/tiny_llama/grouped");
  std::unique_ptr<CausalLM> model;
  AdapterOptions adapter;
  std::vector<Parameter> parameters;

  explicit Tiny(double dropout = 0, at::ScalarType dtype = at::kFloat, bool random_b = false)
      : Tiny(adapter_options(dropout), dtype, random_b) {}
  explicit Tiny(AdapterOptions options, at::ScalarType dtype = at::kFloat, bool random_b = false)
      : model(CausalLM::load(*checkpoint, {.base = BaseForm::dense, .dtype = dtype})), adapter(std::move(options)) {
    attach(*model, adapter, 7);
    parameters = trainable_parameters(*model);
    if (!random_b) return;
    auto generator = at::globalContext().defaultGenerator(at::kCPU).clone();
    generator.set_current_seed(1);
    for (auto& p : parameters)
      p.tensor.detach().normal_(0, 0.2, generator);  // B would be zero, and A's gradient with it
  }

  TrainResult train_in(const fs::path& folder, const TrainOptions& options, const PackedDataset& data,
                       const PackedDataset* validation = nullptr, bool resume = false,
                       const TrainCallbacks& callbacks = {}) {
    TrainRun run{.folder = folder, .seed = 7, .resume = resume};
    run.save_adapter = [&](const fs::path& path) { save_peft(path, *model, adapter, {}); };
    return train(*model, parameters, data, validation, cross_entropy_objective(), options, run, callbacks);
  }
};

/// Loss a trained token and the gradients of the windows, as one batch or one by one.
std::vector<at::Tensor> loss_and_gradients(Tiny& tiny, const PackedDataset& data, bool packed,
                                           const ForwardOptions& forward = {.training = true}) {
  std::vector<int64_t> windows(static_cast<size_t>(data.windows()));
  int64_t trained = 0;
  for (size_t w = 0; w < windows.size(); ++w) trained += data.window_trained(windows[w] = static_cast<int64_t>(w));
  for (auto& p : tiny.parameters) p.tensor.mutable_grad() = at::Tensor();
  const auto objective = cross_entropy_objective();
  at::Tensor total = at::zeros({}, at::kDouble);
  const size_t each = packed ? windows.size() : 1;
  for (size_t begin = 0; begin < windows.size(); begin += each) {
    const auto part = std::span<const int64_t>(windows).subspan(begin, each);
    const at::Tensor loss = objective(*tiny.model, data.batch(part), part, forward) / static_cast<double>(trained);
    loss.backward();
    total += loss.detach();
  }
  std::vector<at::Tensor> out{total};
  for (const auto& p : tiny.parameters) out.push_back(p.tensor.grad().clone());
  return out;
}

}  // namespace

TEST(TinyModel, PackedRowsGiveTheLossAndGradientsOfRowsOneByOne) {
  FakeData data(12);
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-6}, std::pair{at::kDouble, 1e-13}}) {
    Tiny tiny(0, dtype, /*random_b=*/true);
    const auto packed = loss_and_gradients(tiny, data, true), alone = loss_and_gradients(tiny, data, false);
    ASSERT_EQ(packed.size(), tiny.parameters.size() + 1);
    for (size_t i = 0; i < packed.size(); ++i) {
      EXPECT_GT(alone[i].abs().max().item<double>(), 0) << i;
      EXPECT_LT((packed[i] - alone[i]).abs().max().item<double>(),
                tolerance * std::max(1.0, alone[i].abs().max().item<double>()))
          << (i ? tiny.parameters[i - 1].name : "loss");
    }
  }
}

TEST(TinyModel, CheckpointingGivesEveryAdapterTheSameGradient) {
  FakeData data(6);
  for (const double dropout : {0.0, 0.3}) {
    Tiny tiny(dropout, at::kFloat, /*random_b=*/true);
    const auto plain = loss_and_gradients(tiny, data, true);
    for (const int64_t every : {1, 2}) {
      const auto again = loss_and_gradients(
          tiny, data, true, {.training = true, .checkpointing = true, .checkpoint_every = every, .offload = true});
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_GT(again[i].abs().max().item<double>(), 0) << i;
        EXPECT_TRUE(at::equal(plain[i], again[i]))
            << (i ? tiny.parameters[i - 1].name : "loss") << " dropout " << dropout << " every " << every;
      }
    }
  }
}

/// With updates below half of bf16's last bit: rounding to the nearest would lose every one of them.
TEST(TinyModel, ParametersOfBf16LearnAsThoseOfF32Do) {
  FakeData data(24);
  std::vector<double> learned;
  for (const char* dtype : {"f32", "bf16"}) {
    AdapterOptions adapter = adapter_options();
    adapter.dtype = dtype;
    TrainOptions options;
    options.micro_batch_size = 24;
    options.max_steps = 150;
    options.learning_rate = 2e-4;
    options.lr_scheduler_type = "constant";
    Tiny tiny(adapter, at::kFloat, /*random_b=*/true);  // about 0.2, where the last bit is 0.001
    for (const Parameter& p : tiny.parameters)
      EXPECT_EQ(p.tensor.scalar_type(), adapter.dtype == "bf16" ? at::kBFloat16 : at::kFloat);
    const TrainResult result = tiny.train_in(fresh_folder(fmt::format("tiny-{}", dtype)), options, data);
    learned.push_back(result.loss_first - result.loss_last);
  }
  EXPECT_GT(learned[0], 0.1) << "nats";
  EXPECT_NEAR(learned[1] / learned[0], 1, 0.2);
}

/// model.dtype: bf16, whose products and activations have 8 bits.
TEST(TinyModel, ComputingInBf16LearnsAsF32Does) {
  FakeData data(24);
  std::vector<TrainResult> results;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    TrainOptions options;
    options.micro_batch_size = 12;
    options.gradient_accumulation_steps = 2;
    options.max_steps = 30;
    options.learning_rate = 5e-3;
    options.gradient_checkpointing = true;
    Tiny tiny(0, dtype);
    for (const Parameter& p : tiny.parameters) EXPECT_EQ(p.tensor.scalar_type(), at::kFloat) << p.name;
    results.push_back(tiny.train_in(fresh_folder(fmt::format("tiny-compute-{}", results.size())), options, data));
  }
  EXPECT_GT(results[0].loss_first - results[0].loss_last, 0.5) << "nats";
  EXPECT_NEAR(results[1].loss_first, results[0].loss_first, 0.02);
  EXPECT_NEAR(results[1].loss_last, results[0].loss_last, 0.1);
}

TEST(TinyModel, SplittingTheBatchChangesNoUpdate) {
  FakeData data(24);
  std::vector<std::vector<at::Tensor>> ends;
  for (const int64_t micro : {8, 2, 1}) {
    TrainOptions options;
    options.micro_batch_size = micro;
    options.gradient_accumulation_steps = 8 / micro;
    options.max_steps = 5;
    options.learning_rate = 1e-3;
    Tiny tiny;
    tiny.train_in(fresh_folder(fmt::format("tiny-split-{}", micro)), options, data);
    auto& end = ends.emplace_back();
    for (const auto& p : tiny.parameters) end.push_back(p.tensor.detach());
  }
  for (size_t k = 1; k < ends.size(); ++k)
    for (size_t i = 0; i < ends[0].size(); ++i)
      EXPECT_LT((ends[0][i] - ends[k][i]).abs().max().item<double>(), 1e-6) << i;
}

std::vector<AdapterOptions> every_kind() {
  AdapterOptions lora = adapter_options(0.1), dora = lora, vera = lora, ia3, pissa = lora, bf16 = lora;
  dora.kind = "dora";
  vera.kind = "vera";
  vera.lora_alpha = AdapterOptions().lora_alpha;
  ia3.kind = "ia3";
  pissa.init_lora_weights = {LoraInit::pissa, 0};
  bf16.dtype = "bf16";
  bf16.modules_to_save = {"lm_head"};
  return {lora, dora, vera, ia3, pissa, bf16};
}

class TinyKind : public testing::TestWithParam<AdapterOptions> {};
INSTANTIATE_TEST_SUITE_P(Kinds, TinyKind, testing::ValuesIn(every_kind()), [](const auto& info) {
  const AdapterOptions& options = info.param;
  if (options.dtype == "bf16") return std::string("lora_bf16");
  return options.init_lora_weights.from_weight() ? options.init_lora_weights.name() : options.kind;
});

TEST_P(TinyKind, ResumeWithDropoutAccumulationAndCheckpointingIsBitEqual) {
  FakeData data(25), validation(5, 3);
  TrainOptions options;
  options.micro_batch_size = 3;
  options.gradient_accumulation_steps = 2;
  options.num_train_epochs = 3;
  options.learning_rate = 1e-3;
  options.eval_steps = 4;
  options.save_steps = 2;
  options.logging_steps = 3;
  options.save_total_limit = std::nullopt;
  options.gradient_checkpointing = true;
  const auto whole = fresh_folder("tiny-whole");
  Tiny uninterrupted(GetParam());
  const auto result = uninterrupted.train_in(whole, options, data, &validation);
  EXPECT_EQ(result.steps, 15);
  struct Interrupted {};
  for (int64_t stop = 1; stop < 15; stop += GetParam().kind == "lora" ? 3 : 7) {
    const auto folder = fresh_folder(fmt::format("tiny-stop-{}", stop));
    const auto interrupt = [&](int64_t step) {
      if (step == stop) throw Interrupted();
    };
    Tiny first(GetParam()), second(GetParam());
    EXPECT_THROW(first.train_in(folder, options, data, &validation, false, {.on_step = interrupt}), Interrupted);
    at::rand({100});  // whatever else the process draws does not matter
    const auto resumed = second.train_in(folder, options, data, &validation, true);
    for (const char* file :
         {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "optimizer.safetensors"})
      EXPECT_EQ(read_text(resumed.checkpoint / file), read_text(result.checkpoint / file))
          << file << " stopped at " << stop;
    EXPECT_EQ(metrics_lines(folder), metrics_lines(whole));
    EXPECT_EQ(resumed.validation_loss, result.validation_loss);
    EXPECT_EQ(resumed.loss_first, result.loss_first);
    EXPECT_EQ(resumed.tokens, result.tokens);
  }
}

TEST(TinyModel, CheckpointsHoldAPeftFolder) {
  FakeData data(8);
  TrainOptions options;
  options.micro_batch_size = 4;
  Tiny tiny;
  const auto result = tiny.train_in(fresh_folder("tiny-peft"), options, data);
  Tiny other;
  load_peft(result.checkpoint / "adapter", *other.model);
  const auto loaded = trainable_parameters(*other.model);
  ASSERT_EQ(loaded.size(), tiny.parameters.size());
  for (size_t i = 0; i < loaded.size(); ++i) EXPECT_TRUE(at::equal(loaded[i].tensor, tiny.parameters[i].tensor));
}

}  // namespace retort
