// What distillation costs: filling a cache against llama.cpp's own --kl-divergence-base on the same file, and a
// training step from the cache, and one that asks the teacher, against the same step with cross entropy alone. Prints
// one JSON line.
//
//   distill --model smollm2.gguf --text foldoc.txt --peer llama-perplexity [--windows 24] [--steps 4] [--threads 2]
//
// The peer keeps the logits of the second half of each window of 512 tokens; so does the capture. Both times are of
// everything from opening the file to the last byte written. Steps are taken in turn; the first of each kind is not
// counted.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/process.h"
#include "core/temporary_folder.h"
#include "data/tokenizer.h"
#include "distill/logit_cache.h"
#include "distill/online.h"
#include "distill/teacher.h"
#include "recipes/distill_options.h"
#include "trainer/distillation.h"
#include "trainer/optimizer.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string model, text, peer;
  int64_t windows = 24, steps = 4;
  int threads = 2;
};

constexpr int64_t window_tokens = 512;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// One document a window; trained are the tokens of its second half, as the peer counts.
class Windows final : public PackedDataset {
 public:
  Windows(std::vector<int32_t> ids, int64_t windows) : ids_(std::move(ids)), windows_(windows) {}
  int64_t windows() const override { return windows_; }
  int64_t window_tokens(int64_t) const override { return retort::window_tokens; }
  int64_t window_trained(int64_t) const override { return retort::window_tokens / 2 - 1; }
  const Ledger& ledger() const override { return ledger_; }
  std::string key() const override { return "bench"; }
  Batch batch(std::span<const int64_t> windows) const override {
    Batch batch;
    batch.offsets = {0};
    std::vector<at::Tensor> ids, labels;
    for (const int64_t w : windows) {
      const at::Tensor one = at::from_blob(const_cast<int32_t*>(ids_.data()) + w * retort::window_tokens,
                                           {retort::window_tokens}, at::kInt)
                                 .to(at::kLong);
      at::Tensor label = at::full({retort::window_tokens}, -1, at::kLong);
      const int64_t first = retort::window_tokens / 2, last = retort::window_tokens - 1;
      label.slice(0, first, last).copy_(one.slice(0, first + 1, last + 1));
      ids.push_back(one);
      labels.push_back(label);
      batch.offsets.push_back(batch.offsets.back() + retort::window_tokens);
    }
    batch.ids = at::cat(ids);
    batch.labels = at::cat(labels);
    return batch;
  }

 private:
  std::vector<int32_t> ids_;
  int64_t windows_;
  Ledger ledger_;
};

Json measure(const BenchOptions& o) {
  at::set_num_threads(o.threads);
  at::manual_seed(0);
  const TemporaryFolder folder;
  const auto tokenizer = Tokenizer::open(o.model);
  std::vector<int32_t> ids = tokenizer->encode(read_text(o.text), false);
  if (static_cast<int64_t>(ids.size()) < o.windows * window_tokens)
    fail(Exit::usage, "{}: {} tokens, needed {}", o.text, ids.size(), o.windows * window_tokens);
  ids.resize(static_cast<size_t>(o.windows * window_tokens));
  const Windows data(std::move(ids), o.windows);
  const auto tokens = static_cast<double>(o.windows * window_tokens);
  auto model = CausalLM::load(*Checkpoint::open(o.model), {});
  const CacheOptions cache_options;
  const Cells cells = cluster_cells(model->linears().back()->weight(), tokenizer->size(), cache_options.tail_clusters,
                                    cache_options.seed);

  double start = seconds_now();
  OpenedTeacher teacher = open_teacher({.path = o.model, .threads = o.threads});
  const CacheSubject subject{.teacher = teacher.model->identity(),
                             .tokenizer_hash = tokenizer->hash(),
                             .template_hash = "bench",
                             .vocab = model->config().vocab};
  const CaptureReport captured = capture(*teacher.model, data, cells, subject, cache_options, folder.path() / "cache");
  const double capture_seconds = seconds_now() - start;
  teacher.model.reset();
  Json result = {{"capture",
                  {{"tokens_per_second", tokens / capture_seconds},
                   {"bytes_a_token", static_cast<double>(captured.bytes) / static_cast<double>(captured.positions)},
                   {"teacher_share", captured.teacher_seconds / captured.seconds}}}};

  if (!o.peer.empty()) {
    const fs::path base = folder.path() / "base.kld";
    start = seconds_now();
    const ProcessResult peer = run_program({o.peer, "-m", o.model, "-f", o.text, "-c", std::to_string(window_tokens),
                                            "--chunks", std::to_string(o.windows), "-t", std::to_string(o.threads),
                                            "--kl-divergence-base", base.string()});
    if (peer.status != 0) fail(Exit::unavailable, "{}: {}", o.peer, peer.errors);
    const double peer_seconds = seconds_now() - start;
    result["peer"] = {{"tokens_per_second", tokens / peer_seconds},
                      {"bytes_a_token", static_cast<double>(fs::file_size(base)) / (tokens / 2)}};
    result["capture_ratio"] = peer_seconds / capture_seconds;
  }

  AdapterOptions adapter;
  attach(*model, adapter, 0);
  Optimizer optimizer(trainable_parameters(*model), {});
  DivergenceOptions divergence;
  divergence.kd_weight = divergence.ce_weight = 0.5;
  const auto cache = LogitCache::open(folder.path() / "cache", subject);
  const Estimator estimator = estimator_of({});  // what a recipe that names none gets
  result["estimator"] = name_of(estimator);
  const Objective from_cache =
      sum_of({divergence_part(cached_targets(cache, 1, estimator), divergence, std::make_shared<ObjectiveState>())});
  const Objective alone = cross_entropy_objective();
  const std::vector<int64_t> windows = {0, 1};
  const Batch batch = data.batch(windows);
  const int64_t trained = (batch.labels >= 0).sum().item<int64_t>();
  /// Seconds of a step with cross entropy alone and of one with `other`, in turn.
  const auto steps_in_turn = [&](const Objective& other) {
    std::vector<double> seconds[2];
    for (int64_t step = 0; step <= o.steps; ++step)
      for (size_t kind = 0; kind < 2; ++kind) {
        start = seconds_now();
        optimizer.zero_grad();
        const at::Tensor loss = (kind ? other : alone)(*model, batch, windows, {.training = true}).div(trained);
        loss.backward();
        optimizer.step(1e-4);
        if (step > 0) seconds[kind].push_back(seconds_now() - start);
      }
    return std::pair{median(seconds[0]), median(seconds[1])};
  };
  const auto [alone_seconds, cache_seconds] = steps_in_turn(from_cache);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  result["step"] = {{"cross_entropy_seconds", alone_seconds}, {"from_cache_seconds", cache_seconds}};
  result["step_ratio"] = cache_seconds / alone_seconds;
  result["peak_rss_bytes"] = int64_t{usage.ru_maxrss} * 1024;

  teacher = open_teacher({.path = o.model, .threads = o.threads});
  const auto [again_seconds, online_seconds] = steps_in_turn(
      sum_of({divergence_part(online_targets(*teacher.model), divergence, std::make_shared<ObjectiveState>())}));
  result["online"] = {{"cross_entropy_seconds", again_seconds},
                      {"online_seconds", online_seconds},
                      {"step_ratio", online_seconds / again_seconds}};
  return result;
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::BenchOptions o;
  CLI::App app("What distillation costs; prints one JSON line.");
  app.add_option("--model", o.model, "GGUF file: the teacher, and the student's base")->required();
  app.add_option("--text", o.text, "a text file of at least windows x 512 tokens")->required();
  app.add_option("--peer", o.peer, "llama.cpp's llama-perplexity");
  app.add_option("--windows", o.windows)->check(CLI::Range(2, 1000000));
  app.add_option("--steps", o.steps)->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    fmt::print("{}\n", retort::measure(o).dump());
  } catch (const retort::Error& error) {
    fmt::print(stderr, "distill: {}\n", error.what());
    return static_cast<int>(error.exit());
  }
  return 0;
}
