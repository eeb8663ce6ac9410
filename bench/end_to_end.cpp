// One LoRA training step, timed: forward, backward, update. Prints one JSON line.
//
// Every linear layer of the blocks gets an adapter; random tokens, all of them trained; the first step is not counted.
//   end_to_end --model smollm2.gguf --dtype f32 --batch 4 --seq 256 --steps 5 --r 16 --threads 2 [--quant
//   native|nf4_dq|int8]
//   [--every 1] [--optimizer adamw]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/json.h"
#include "models/causal_lm.h"
#include "models/quantized_checkpoint.h"
#include "trainer/optimizer.h"

namespace retort {
namespace {

struct BenchOptions {
  std::string model, dtype = "f32", quant = "none", lengths, optimizer = "adamw";
  int64_t batch = 4, seq = 256, steps = 5, r = 16, every = 0;
  int threads = 2;
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Documents of --seq tokens each; with --lengths of these lengths instead, repeated until batch x seq tokens are full.
Batch random_batch(const BenchOptions& o, int64_t vocab) {
  std::vector<int64_t> lengths = {o.seq};
  if (!o.lengths.empty()) {
    lengths.clear();
    for (const std::string& length : CLI::detail::split(o.lengths, ',')) lengths.push_back(std::stoll(length));
  }
  Batch batch;
  batch.offsets = {0};
  const int64_t tokens = o.batch * o.seq;
  for (size_t i = 0; batch.offsets.back() < tokens; ++i)
    batch.offsets.push_back(std::min(tokens, batch.offsets.back() + lengths[i % lengths.size()]));
  batch.ids = at::randint(vocab, {tokens}, at::kLong);
  batch.labels = at::full({tokens}, -1, at::kLong);
  for (size_t d = 0; d + 1 < batch.offsets.size(); ++d) {
    const int64_t begin = batch.offsets[d], end = batch.offsets[d + 1];
    batch.labels.slice(0, begin, end - 1).copy_(batch.ids.slice(0, begin + 1, end));
  }
  return batch;
}

Json measure(const BenchOptions& o) {
  at::set_num_threads(o.threads);
  at::manual_seed(0);
  LoadOptions load;
  load.base = o.quant == "none" ? BaseForm::dense : BaseForm::native;
  load.dtype = o.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  const std::string form = o.quant == "none" || o.quant == "native" ? "" : o.quant;
  auto model = CausalLM::load(*open_checkpoint(o.model, form), load);
  AdapterOptions adapter;
  adapter.r = o.r;
  adapter.lora_alpha = 2.0 * static_cast<double>(o.r);
  const AttachReport report = attach(*model, adapter, 0);
  TrainOptions options;
  options.optimizer = o.optimizer;
  Optimizer optimizer(trainable_parameters(*model), options);
  const Batch batch = random_batch(o, model->config().vocab);
  const int64_t trained = (batch.labels >= 0).sum().item<int64_t>();

  const ForwardOptions forward{
      .training = true, .checkpointing = o.every > 0, .checkpoint_every = std::max<int64_t>(1, o.every)};
  double loss_value = 0;
  std::vector<double> seconds;
  for (int64_t step = 0; step < o.steps; ++step) {
    const double start = seconds_now();
    optimizer.zero_grad();
    const at::Tensor hidden = model->hidden(batch, forward);
    const at::Tensor loss = model->cross_entropy(hidden, batch.labels).div(trained);
    loss.backward();
    optimizer.step(2e-4);
    loss_value = loss.item<double>();
    seconds.push_back(seconds_now() - start);
  }
  std::vector<double> counted(seconds.begin() + 1, seconds.end());
  std::sort(counted.begin(), counted.end());
  const size_t middle = counted.size() / 2;
  const double step = counted.size() % 2 ? counted[middle] : (counted[middle - 1] + counted[middle]) / 2;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return {{"tokens_per_second", static_cast<double>(o.batch * o.seq) / step},
          {"step_seconds", step},
          {"all_step_seconds", seconds},
          {"peak_rss_bytes", int64_t{usage.ru_maxrss} * 1024},
          {"peak_device_bytes", 0},
          {"loss", loss_value},
          {"trainable", report.trainable},
          {"dtype", o.dtype},
          {"quant", o.quant},
          {"batch", o.batch},
          {"seq", o.seq},
          {"documents", batch.offsets.size() - 1},
          {"r", o.r},
          {"every", o.every},
          {"optimizer", o.optimizer},
          {"threads", o.threads}};
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::BenchOptions o;
  CLI::App app("One LoRA training step, timed; prints one JSON line.");
  app.add_option("--model", o.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--dtype", o.dtype)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--batch", o.batch)->check(CLI::PositiveNumber);
  app.add_option("--seq", o.seq)->check(CLI::PositiveNumber);
  app.add_option("--lengths", o.lengths, "packing: documents of these lengths, for instance 40,300,120");
  app.add_option("--steps", o.steps)->check(CLI::Range(2, 1000000));
  app.add_option("--quant", o.quant, "native: the file's own blocks; or a format of bitsandbytes")
      ->check(CLI::IsMember({"none", "native", "nf4", "nf4_dq", "fp4", "int8"}));
  app.add_option("--every", o.every, "checkpoint each n-th block; 0: none")->check(CLI::NonNegativeNumber);
  app.add_option("--optimizer", o.optimizer)->check(CLI::IsMember(retort::optimizer_names()));
  app.add_option("--r", o.r)->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    fmt::print("{}\n", retort::measure(o).dump());
  } catch (const retort::Error& error) {
    fmt::print(stderr, "end_to_end: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
  return 0;
}
