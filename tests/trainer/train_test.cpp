#include "trainer/train.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>

#include "core/error.h"
#include "tests/trainer/fake.h"
#include "trainer/checkpoint.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

TrainOptions small_options() {
  TrainOptions options;
  options.micro_batch_size = 4;
  options.learning_rate = 0.02;
  options.max_steps = 20;
  options.weight_decay = 0.01;
  return options;
}

struct Outcome {
  TrainResult result;
  std::vector<at::Tensor> parameters;
};

Outcome run_fake(const fs::path& folder, const TrainOptions& options, FakeModel& model, const PackedDataset& data,
                 const PackedDataset* validation = nullptr, bool resume = false, const TrainCallbacks& callbacks = {}) {
  TrainRun run{
      .folder = folder, .seed = 5, .resume = resume, .save_adapter = [&](const fs::path& p) { model.save(p); }};
  run.identity["base.sha256"] = "fake";
  Outcome out;
  out.result = train(model, model.parameters(), data, validation, cross_entropy_objective(), options, run, callbacks);
  for (const auto& p : model.parameters()) out.parameters.push_back(p.tensor.detach().clone());
  return out;
}

double largest_difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, (a[i] - b[i]).abs().max().item<double>());
  return worst;
}

std::string message_of(const std::function<void()>& action, Exit exit) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), exit) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace

TEST(Train, LossFallsAndFiguresAddUp) {
  const auto folder = fresh_folder("falls");
  FakeModel model;
  FakeData data(40), validation(10, 2);
  const double before = validate(model, validation, 4).loss;
  auto options = small_options();
  options.max_steps = 60;
  const auto [result, parameters] = run_fake(folder, options, model, data, &validation);
  EXPECT_EQ(result.steps, 60);
  EXPECT_EQ(result.epochs, 6);
  int64_t tokens = 0, trained = 0;
  for (int64_t w = 0; w < 40; ++w) {
    tokens += data.window_tokens(w);
    trained += data.window_trained(w);
  }
  EXPECT_EQ(result.tokens, 6 * tokens);
  EXPECT_EQ(result.trained_tokens, 6 * trained);
  EXPECT_LT(result.loss_last, result.loss_first);
  EXPECT_LT(*result.validation_loss, before - 0.1);
  EXPECT_EQ(*result.validation_loss, validate(model, validation, 4).loss);
  EXPECT_GT(result.tokens_per_second, 0);
  EXPECT_GT(result.peak_memory_bytes, 0);
  EXPECT_TRUE(fs::exists(result.checkpoint / "adapter" / "adapter_model.safetensors"));
}

TEST(Train, ValidationIsTheTokenMeanWhateverTheBatch) {
  FakeModel model(at::kDouble);
  FakeData data(13);
  double sum = 0;
  int64_t trained = 0;
  for (int64_t w = 0; w < 13; ++w) {
    const Batch batch = data.batch(std::span(&w, 1));
    sum += model.cross_entropy(model.hidden(batch, {}), batch.labels).item<double>();
    trained += data.window_trained(w);
  }
  for (const int64_t batch : {1, 4, 100}) {
    const auto v = validate(model, data, batch);
    EXPECT_NEAR(v.loss, sum / double(trained), 1e-12);
    EXPECT_EQ(v.trained_tokens, trained);
  }
}

TEST(Train, SplittingTheBatchChangesNoUpdate) {
  FakeData data(37);  // rows of 2 to 40 tokens: a mean of micro-batch means would be far off
  std::vector<Outcome> outcomes;
  for (const int64_t micro : {8, 4, 3, 1}) {
    auto options = small_options();
    options.micro_batch_size = micro;
    options.gradient_accumulation_steps = 24 / micro;
    options.max_steps = 6;
    FakeModel model;
    outcomes.push_back(run_fake(fresh_folder(fmt::format("split-{}", micro)), options, model, data));
  }
  for (size_t i = 1; i < outcomes.size(); ++i) {
    EXPECT_LT(largest_difference(outcomes[0].parameters, outcomes[i].parameters), 1e-6) << i;
    EXPECT_NEAR(outcomes[0].result.loss_last, outcomes[i].result.loss_last, 1e-6);
    EXPECT_EQ(outcomes[0].result.trained_tokens, outcomes[i].result.trained_tokens);
  }
}

TEST(Train, StepsCountEpochsOrAreGiven) {
  TrainOptions options;
  options.micro_batch_size = 3;
  options.gradient_accumulation_steps = 2;
  EXPECT_EQ(total_steps(options, 20), 4);
  options.num_train_epochs = 2.5;
  EXPECT_EQ(total_steps(options, 20), 10);
  options.max_steps = 7;
  EXPECT_EQ(total_steps(options, 20), 7);
}

TEST(Train, EmptyDataIsAnError) {
  FakeModel model;
  FakeData data(0);
  message_of([&] { run_fake(fresh_folder("empty"), small_options(), model, data); }, Exit::bad_input);
}

TEST(Train, DataWhoseCountsLieIsAnError) {
  struct Lying : FakeData {
    using FakeData::FakeData;
    int64_t window_trained(int64_t w) const override { return FakeData::window_trained(w) + 1; }
  } data(8);
  FakeModel model;
  message_of([&] { run_fake(fresh_folder("lying"), small_options(), model, data); }, Exit::bad_input);
}

TEST(Train, MetricsHaveALineAStepAndValidation) {
  const auto folder = fresh_folder("metrics");
  FakeModel model;
  FakeData data(40), validation(10, 2);
  auto options = small_options();
  options.logging_steps = 3;
  options.eval_steps = 5;
  options.max_steps = 10;
  int lines_seen = 0;
  run_fake(folder, options, model, data, &validation, false, {.on_metrics = [&](const StepMetrics&) { ++lines_seen; }});
  const auto lines = metrics_lines(folder);
  std::vector<int64_t> steps;
  for (const auto& line : lines) {
    const Json json = parse_json(line, "line");
    steps.push_back(json["step"]);
    EXPECT_EQ(json.contains("validation_loss"), steps.back() % 5 == 0) << line;
    if (json.contains("validation_loss")) {
      EXPECT_DOUBLE_EQ(json["validation_perplexity"], std::exp(json["validation_loss"].get<double>()));
    }
    for (const char* key : {"loss", "learning_rate", "grad_norm", "tokens", "trained_tokens", "epoch"})
      EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 3, 5, 6, 9, 10}));
  EXPECT_EQ(lines_seen, 6);
  EXPECT_GT(fs::file_size(folder / "tensorboard" / "events.out.tfevents.0.retort"), 6u * 60);
}

TEST(Train, KeepsTheNewestCheckpointsAndTheBest) {
  const auto folder = fresh_folder("keep");
  FakeModel model;
  FakeData data(40), validation(10, 2);
  auto options = small_options();
  options.learning_rate = 0.5;  // gets better, then worse
  options.lr_scheduler_type = "constant";
  options.max_steps = 30;
  options.eval_steps = 1;
  options.save_steps = 2;
  options.save_total_limit = 2;
  const auto result = run_fake(folder, options, model, data, &validation).result;
  std::vector<int64_t> steps;
  for (const auto& c : list_checkpoints(folder / "checkpoints")) steps.push_back(c.step);
  ASSERT_LT(result.best_step, 28);
  EXPECT_EQ(steps, (std::vector<int64_t>{result.best_step, 28, 30}));
  EXPECT_LT(*result.best_validation_loss, *result.validation_loss);
  EXPECT_EQ(result.best_checkpoint, checkpoint_path(folder / "checkpoints", result.best_step));
}

TEST(Train, StopsEarlyAndEndsWithTheBestAdapter) {
  const auto folder = fresh_folder("early");
  FakeModel model;
  FakeData data(40), validation(10, 2);
  auto options = small_options();
  options.learning_rate = 0.3;
  options.lr_scheduler_type = "constant";
  options.max_steps = 200;
  options.eval_steps = 1;
  options.early_stopping_patience = 5;
  const auto result = run_fake(folder, options, model, data, &validation).result;
  EXPECT_TRUE(result.stopped_early);
  EXPECT_TRUE(result.loaded_best);
  EXPECT_EQ(result.steps, result.best_step + 5);
  EXPECT_NEAR(validate(model, validation, 4).loss, *result.best_validation_loss, 1e-12);
}

TEST(Train, NonFiniteLossStopsAndLeavesWhatIsNeeded) {
  const auto folder = fresh_folder("nonfinite");
  FakeModel model;
  FakeData data(40);
  int forwards = 0;
  model.on_forward = [&](bool) {
    if (++forwards == 7) model.parameters()[0].tensor.detach().fill_(std::nanf(""));
  };
  auto options = small_options();
  options.gradient_accumulation_steps = 2;
  const auto message = message_of([&] { run_fake(folder, options, model, data); }, Exit::internal);
  EXPECT_NE(message.find("step 4"), std::string::npos) << message;
  EXPECT_NE(message.find("lora_A.weight"), std::string::npos) << message;
  const Json report = read_json(folder / "checkpoints" / "nonfinite-000004" / "nonfinite.json");
  EXPECT_EQ(report["windows"].size(), 8u);
  EXPECT_EQ(report["micro_batch_losses"][0], "nan");
  EXPECT_EQ(report["parameter_grad_norms"].size(), 2u);
  EXPECT_TRUE(fs::exists(folder / "checkpoints" / "nonfinite-000004" / "adapter" / "adapter_model.safetensors"));
  EXPECT_EQ(metrics_lines(folder).size(), 3u);
}

TEST(Train, ResumeOfAFinishedRunTrainsNothing) {
  const auto folder = fresh_folder("finished");
  FakeData data(40), validation(10, 2);
  FakeModel first, second;
  const auto options = small_options();
  const auto done = run_fake(folder, options, first, data, &validation);
  int forwards = 0;
  second.on_forward = [&](bool) { ++forwards; };
  const auto again = run_fake(folder, options, second, data, &validation, true);
  EXPECT_EQ(forwards, 0);
  EXPECT_EQ(largest_difference(done.parameters, again.parameters), 0);
  EXPECT_EQ(again.result.validation_loss, done.result.validation_loss);
  EXPECT_EQ(again.result.loss_first, done.result.loss_first);
  EXPECT_EQ(again.result.steps, 20);
}

TEST(Train, CheckpointOfAnotherRunIsRefusedByName) {
  const auto folder = fresh_folder("another");
  FakeData data(40), other(40, 9);
  auto options = small_options();
  FakeModel model;
  run_fake(folder, options, model, data);
  auto refused = [&](const TrainOptions& with, const PackedDataset& on) {
    return message_of([&] { run_fake(folder, with, model, on, nullptr, true); }, Exit::usage);
  };
  EXPECT_NE(refused(options, other).find("data.train"), std::string::npos);
  auto changed = options;
  changed.learning_rate = 0.01;
  const auto message = refused(changed, data);
  EXPECT_NE(message.find("train.learning_rate = 0.02, this run has 0.01"), std::string::npos) << message;
  // How often something is written, and how memory is spent, may change.
  changed = options;
  changed.save_steps = 3;
  changed.logging_steps = 7;
  changed.gradient_checkpointing = true;
  EXPECT_NO_THROW(run_fake(folder, changed, model, data, nullptr, true));
}

TEST(Train, TornCheckpointsAreNotSeen) {
  const auto folder = fresh_folder("torn");
  FakeData data(40);
  FakeModel model;
  run_fake(folder, small_options(), model, data);
  const auto checkpoints = folder / "checkpoints";
  fs::create_directories(checkpoints / ".step-000021.partial-1-0");
  fs::create_directories(checkpoints / "step-000022x");
  std::ofstream(checkpoints / "step-000023") << "a file";
  EXPECT_EQ(list_checkpoints(checkpoints).back().step, 20);
}

TEST(Train, DamagedCheckpointsAreErrorsThatNameTheFile) {
  FakeData data(40);
  const auto options = small_options();
  const auto whole = fresh_folder("damaged");
  {
    FakeModel model;
    run_fake(whole, options, model, data);
  }
  const auto step = list_checkpoints(whole / "checkpoints").back().path;
  for (const char* name : {"state.json", "optimizer.safetensors", "adapter/adapter_model.safetensors"}) {
    const std::string good = read_text(step / name);
    std::vector<std::string> bad{good.substr(0, good.size() / 2), "", "{}"};
    if (std::string(name) == "state.json") {
      for (const char* key :
           {"\"format\"", "\"state\"", "\"loader\"", "\"identity\"", "\"step\"", "\"metrics_bytes\""}) {
        std::string without = good;
        without.replace(without.find(key), 3, "\"X_");
        bad.push_back(without);
      }
    } else {
      std::string renamed = good;
      renamed.replace(renamed.find("weight"), 6, "WEIGHT");
      bad.push_back(renamed);
    }
    for (const auto& text : bad) {
      std::ofstream(step / name, std::ios::trunc) << text;
      FakeModel model;
      try {
        run_fake(whole, options, model, data, nullptr, true);
        ADD_FAILURE() << name << " accepted: " << text.substr(0, 200);
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(fs::path(name).filename().string()), std::string::npos)
            << error.what();
        EXPECT_TRUE(error.exit() == Exit::bad_input || error.exit() == Exit::usage) << error.what();
      }
    }
    std::ofstream(step / name, std::ios::trunc) << good;
  }
  // A generator's bytes are checked by LibTorch; random ones are refused, not loaded.
  const auto file = step / "optimizer.safetensors";
  const auto stored = SafetensorsFile::open(file);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& entry : stored->entries()) tensors.emplace_back(entry.name, stored->tensor(entry.name).clone());
  for (auto& [name, tensor] : tensors)
    if (name == "generator.cpu") tensor.fill_(0xff);
  write_safetensors(file, tensors);
  FakeModel model;
  message_of([&] { run_fake(whole, options, model, data, nullptr, true); }, Exit::bad_input);
}

TEST(Train, ShorterMetricsThanTheCheckpointKnowsIsAnError) {
  const auto folder = fresh_folder("short");
  FakeData data(40);
  FakeModel model;
  run_fake(folder, small_options(), model, data);
  fs::resize_file(folder / "metrics.jsonl", 10);
  const auto message = message_of([&] { run_fake(folder, small_options(), model, data, nullptr, true); }, Exit::io);
  EXPECT_NE(message.find("metrics.jsonl"), std::string::npos);
}

TEST(Train, FullDiskKeepsTheOlderCheckpoint) {
  const auto folder = fresh_folder("full");
  FakeData data(40);
  FakeModel model;
  auto options = small_options();
  options.save_steps = 5;
  struct rlimit before {};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  const auto message = message_of(
      [&] {
        run_fake(folder, options, model, data, nullptr, false, {.on_step = [&](int64_t step) {
                   // The metrics' next lines still fit, a checkpoint does not: as on a disk with few bytes left.
                   if (step == 9) {
                     struct rlimit small = before;
                     small.rlim_cur = fs::file_size(folder / "metrics.jsonl") + 1500;
                     setrlimit(RLIMIT_FSIZE, &small);
                   }
                 }});
      },
      Exit::io);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_NE(message.find("step-000010"), std::string::npos) << message;
  ASSERT_EQ(list_checkpoints(folder / "checkpoints").size(), 1u);
  EXPECT_EQ(list_checkpoints(folder / "checkpoints").back().step, 5);
  FakeModel whole, resumed;
  const auto expected = run_fake(fresh_folder("full-whole"), options, whole, data);
  EXPECT_EQ(largest_difference(expected.parameters, run_fake(folder, options, resumed, data, nullptr, true).parameters),
            0);
}

}  // namespace retort
