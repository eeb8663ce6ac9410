// How well `retort check` predicts: plans a run over random rows, trains it, prints one JSON line with both.
//
//   plan --model smollm2.gguf --base native --micro_batch_size 8 --tokens 512 --documents 4 --steps 3 [--every 1]
//   [--optimizer lion]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <random>

#include "adapters/peft.h"
#include "core/error.h"
#include "trainer/optimizer.h"
#include "trainer/plan.h"
#include "trainer/train.h"

namespace retort {
namespace {

/// Windows of `tokens` random tokens in documents of one length, of which a part is trained.
class RandomRows : public PackedDataset {
 public:
  RandomRows(int64_t windows, int64_t tokens, int64_t documents, double trained, int64_t vocab)
      : windows_(windows), length_(tokens / documents), documents_(documents), vocab_(vocab) {
    trained_ = std::clamp<int64_t>(static_cast<int64_t>(trained * static_cast<double>(length_)), 1, length_ - 1);
    ledger_.rows = windows * documents;
    ledger_.tokens = windows * documents * length_;
    ledger_.trained_tokens = windows * documents * trained_;
  }
  int64_t windows() const override { return windows_; }
  int64_t window_tokens(int64_t) const override { return documents_ * length_; }
  int64_t window_trained(int64_t) const override { return documents_ * trained_; }
  const Ledger& ledger() const override { return ledger_; }
  Batch batch(std::span<const int64_t> windows) const override {
    const int64_t documents = documents_ * static_cast<int64_t>(windows.size());
    Batch batch{at::randint(vocab_, {documents * length_}, at::kLong), {}, {0}};
    batch.labels = at::full_like(batch.ids, -1);
    for (int64_t d = 0; d < documents; ++d) {
      const int64_t end = (d + 1) * length_;
      batch.labels.slice(0, end - 1 - trained_, end - 1).copy_(batch.ids.slice(0, end - trained_, end));
      batch.offsets.push_back(end);
    }
    return batch;
  }
  std::string key() const override { return "random rows"; }

 private:
  int64_t windows_, length_, documents_, vocab_, trained_;
  Ledger ledger_;
};

struct BenchOptions {
  std::string model, base = "native", dtype = "f32", optimizer = "adamw", kind = "lora";
  int64_t micro_batch_size = 4, tokens = 256, documents = 1, steps = 3, r = 16;
  double trained = 1;
  int threads = 2;
  int64_t every = 0;  ///< gradient_checkpointing_every; 0: no checkpointing
};

Json measure(const BenchOptions& o) {
  at::set_num_threads(o.threads);
  LoadOptions load{.base = o.base == "native" ? BaseForm::native : BaseForm::dense};
  if (o.dtype == "bf16") load.dtype = at::kBFloat16;
  const auto checkpoint = Checkpoint::open(o.model);
  const auto model = CausalLM::load(*checkpoint, load);
  AdapterOptions adapter;
  adapter.kind = o.kind;
  adapter.r = o.r;
  attach(*model, adapter, 1);
  TrainOptions options;
  options.micro_batch_size = o.micro_batch_size;
  options.max_steps = o.steps;
  options.gradient_checkpointing = o.every > 0;
  options.gradient_checkpointing_every = std::max<int64_t>(1, o.every);
  options.optimizer = o.optimizer;
  const RandomRows rows(o.steps * o.micro_batch_size, o.tokens, o.documents, o.trained, model->config().vocab);
  const TrainPlan plan = plan_training(*model, rows, nullptr, options, 1);
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("retort-bench-plan-{}", getpid());
  TrainRun run{.folder = folder, .seed = 1};
  run.save_adapter = [&](const std::filesystem::path& path) { save_peft(path, *model, adapter, {}); };
  const TrainResult result =
      train(*model, trainable_parameters(*model), rows, nullptr, cross_entropy_objective(), options, run);
  std::filesystem::remove_all(folder);
  const auto ratio = [](double predicted, double measured) { return std::round(1000 * predicted / measured) / 1000; };
  return {
      {"micro_batch_size", o.micro_batch_size},
      {"tokens", o.tokens},
      {"documents", o.documents},
      {"base", o.base},
      {"kind", o.kind},
      {"dtype", o.dtype},
      {"r", o.r},
      {"every", o.every},
      {"optimizer", o.optimizer},
      {"trained", o.trained},
      {"planned", plan.to_json()},
      {"peak_memory_bytes", result.peak_memory_bytes},
      {"memory_ratio", ratio(static_cast<double>(plan.memory.total()), static_cast<double>(result.peak_memory_bytes))},
      {"tokens_per_second", result.tokens_per_second},
      {"seconds", result.seconds},
      {"time_ratio", ratio(plan.seconds, result.seconds)}};
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::BenchOptions o;
  CLI::App app("Predicted and measured memory and time of a training run; prints one JSON line.");
  app.add_option("--model", o.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--base", o.base)->check(CLI::IsMember({"native", "dense"}));
  app.add_option("--dtype", o.dtype)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--micro_batch_size", o.micro_batch_size)->check(CLI::PositiveNumber);
  app.add_option("--tokens", o.tokens, "of a window")->check(CLI::PositiveNumber);
  app.add_option("--documents", o.documents, "of a window")->check(CLI::PositiveNumber);
  app.add_option("--trained", o.trained, "part of the tokens")->check(CLI::Range(0.0, 1.0));
  app.add_option("--steps", o.steps)->check(CLI::PositiveNumber);
  app.add_option("--r", o.r)->check(CLI::PositiveNumber);
  app.add_option("--kind", o.kind, "of adapter");
  app.add_option("--threads", o.threads)->check(CLI::PositiveNumber);
  app.add_option("--every", o.every, "checkpoint each n-th block; 0: none")->check(CLI::NonNegativeNumber);
  app.add_option("--optimizer", o.optimizer)->check(CLI::IsMember(retort::optimizer_names()));
  CLI11_PARSE(app, argc, argv);
  try {
    fmt::print("{}\n", retort::measure(o).dump());
  } catch (const retort::Error& error) {
    fmt::print(stderr, "plan: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
  return 0;
}
