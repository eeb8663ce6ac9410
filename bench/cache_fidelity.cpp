// How much of the full forward KL's gradient a cache's targets keep, on real text, against what other tools store.
//
//   cache_fidelity --teacher MODEL --student MODEL --text FILE [--teacher-adapter DIR] [--tokens 2048] [--top-k 64]
//                  [--min-probability 0.006] [--cells 16] [--tail-samples 2] [--temperatures 1,2,4]
//   cache_fidelity --teacher MODEL.gguf --student-quantized Q2_K [--student-without 8,9] --text FILE …
//   cache_fidelity --time 262144       only the time that a capture takes beside its teacher, for made-up logits
//
// Both models are GGUF files or Hugging Face folders of one vocabulary; of a GGUF file of any architecture the student
// can be a coarser quantization, without some layers, that llama.cpp makes of it. First the cache is filled from the
// teacher, then both models are asked again, a few windows of 256 tokens at a time, and each way to store the teacher
// is compared with its whole logits: gradients of the forward KL at a temperature by the student's logits and, after
// the student's head, by its hidden state. Prints one JSON line for the capture and one for each way: bytes a token,
// relative mean squared error of both gradients, the mean cosine of the second.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <llama.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/temporary_folder.h"
#include "distill/cache_rows.h"
#include "export/types.h"
#include "models/gguf.h"

namespace retort {
namespace {

struct BenchOptions {
  std::string teacher, adapter, student, quantized, text;
  std::vector<int32_t> without;
  int64_t tokens = 2048, skip_bytes = 200'000, time = 0;
  CacheOptions cache;
};

constexpr int64_t window_tokens = 256;
constexpr int64_t rows_at_once = 128;

/// One document a window, all of it trained.
class Windows final : public PackedDataset {
 public:
  explicit Windows(std::vector<int32_t> ids) : ids_(std::move(ids)) {}
  int64_t windows() const override { return static_cast<int64_t>(ids_.size()) / retort::window_tokens; }
  int64_t window_tokens(int64_t) const override { return retort::window_tokens; }
  int64_t window_trained(int64_t) const override { return retort::window_tokens - 1; }
  const Ledger& ledger() const override { return ledger_; }
  std::string key() const override { return "bench"; }
  Batch batch(std::span<const int64_t> windows) const override {
    Batch batch{{}, {}, {0}};
    std::vector<int64_t> ids;
    for (int64_t w : windows) {
      ids.insert(ids.end(), ids_.begin() + w * retort::window_tokens, ids_.begin() + (w + 1) * retort::window_tokens);
      batch.offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.labels = batch.ids.roll(-1);
    for (size_t d = 1; d < batch.offsets.size(); ++d) batch.labels[batch.offsets[d] - 1] = -1;
    return batch;
  }

 private:
  std::vector<int32_t> ids_;
  Ledger ledger_;
};

/// What the student would be pulled to, f32 [n, V], given its own distribution q.
at::Tensor target_of(const Partition& p, const at::Tensor& q) {
  const at::Tensor used = p.ids >= 0, ids = p.ids.clamp_min(0).to(at::kLong);
  at::Tensor stored = at::zeros({q.size(0), q.size(1) + 1});  // one column more for the places that are not used
  const at::Tensor places = at::where(used, ids, at::full_like(ids, q.size(1)));
  const at::Tensor own = stored.scatter(1, places, at::ones_like(p.log_p)).slice(1, 0, q.size(1)).to(at::kBool);
  const at::Tensor tail = q.masked_fill(own, 0), cell = p.cell_of.to(at::kLong).expand({q.size(0), -1});
  const at::Tensor student = at::zeros_like(p.log_mass).scatter_add_(1, cell, tail);
  const at::Tensor ratio = p.log_mass.exp() / student.clamp_min(1e-12);
  stored.scatter_(1, places, at::where(used, p.log_p.exp(), at::zeros_like(p.log_p)));
  return stored.slice(1, 0, q.size(1)) + tail * ratio.gather(1, cell);
}

/// A way to store the teacher, and its sums over the rows so far.
struct Way {
  std::string name;
  double temperature, bytes;
  double logits = 0, hidden = 0, cosine = 0;

  void add(const at::Tensor& p, const at::Tensor& target, const at::Tensor& head, const at::Tensor& full_hidden) {
    const at::Tensor error = p - target, error_hidden = error.mm(head);
    logits += error.square().sum().item<double>();
    hidden += error_hidden.square().sum().item<double>();
    cosine += at::cosine_similarity(full_hidden + error_hidden, full_hidden, 1).sum().item<double>();
  }
};

struct Sums {
  int64_t rows = 0;
  double kl = 0, logits = 0, hidden = 0;
};

void compare(const BenchOptions& options, Teacher& teacher, Teacher& student, const LogitCache& cache,
             const Windows& data, const at::Tensor& head, double cache_bytes) {
  const int64_t vocab = head.size(0);
  const double id_bits = std::ceil(std::log2(double(vocab)));
  std::map<double, Sums> sums;
  std::map<std::pair<std::string, double>, Way> ways;
  const auto way = [&](const char* name, double temperature, double bytes) -> Way& {
    return ways.try_emplace({name, temperature}, Way{name, temperature, bytes}).first->second;
  };
  for (int64_t w = 0; w < data.windows(); ++w) {
    const Batch batch = data.batch(std::vector<int64_t>{w});
    const at::Tensor ids = batch.ids.to(at::kInt);
    const std::vector<int32_t> document(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
    std::vector<int64_t> positions(window_tokens - 1);
    std::iota(positions.begin(), positions.end(), 0);
    at::Tensor asked[2];
    teacher.logits({document}, {positions},
                   [&](size_t, const at::Tensor& x) { asked[0] = x.slice(1, 0, vocab).clone(); });
    student.logits({document}, {positions},
                   [&](size_t, const at::Tensor& x) { asked[1] = x.slice(1, 0, vocab).clone(); });
    for (double temperature : options.cache.temperatures) {
      std::map<std::string, Partition> held;
      for (const Estimator estimator : {Estimator::clustered, Estimator::ghost, Estimator::zero, Estimator::sampled})
        if (cannot_estimate(cache.options(), temperature, estimator).empty())  // draws are of temperature 1
          held[name_of(estimator)] = cache.targets(batch, temperature, estimator).partition;
      for (int64_t begin = 0; begin < window_tokens - 1; begin += rows_at_once) {
        const auto rows = [&](const at::Tensor& x) { return x.slice(0, begin, begin + rows_at_once); };
        const at::Tensor log_p = at::log_softmax(rows(asked[0]) / temperature, 1), p = log_p.exp();
        const at::Tensor log_q = at::log_softmax(rows(asked[1]) / temperature, 1), q = log_q.exp();
        const at::Tensor full = q - p, full_hidden = full.mm(head);
        Sums& sum = sums[temperature];
        sum.rows += p.size(0);
        sum.kl += (p * (log_p - log_q)).sum().item<double>();
        sum.logits += full.square().sum().item<double>();
        sum.hidden += full_hidden.square().sum().item<double>();
        const auto add = [&](Way& one, const at::Tensor& target) { one.add(p, target, head, full_hidden); };
        for (const auto& [name, partition] : held)
          add(way(name.c_str(), temperature, cache_bytes),
              target_of({rows(partition.ids), rows(partition.log_p), partition.cell_of, rows(partition.log_mass)}, q));
        const auto [top, places] = p.topk(128, 1);
        const at::Tensor mass = top.sum(1, true), zeros = at::zeros_like(p);
        add(way("top-128 renormalised", temperature, 128 * id_bits / 8 + 40), zeros.scatter(1, places, top / mass));
        const at::Tensor rest = (1 - mass) / (1 - q.gather(1, places).sum(1, true)).clamp_min(1e-12);
        add(way("top-128 + ghost", temperature, 128 * (id_bits / 8 + 1)), (q * rest).scatter(1, places, top));
        const at::Tensor draws = p.multinomial(50, true);
        add(way("50 random draws", temperature, 36),
            zeros.scatter_add(1, draws, at::full_like(top.slice(1, 0, 50), 0.02)));
      }
    }
  }
  for (const auto& [key, one] : ways) {
    const Sums& sum = sums[one.temperature];
    const auto n = static_cast<double>(sum.rows);
    const Json line = {{"stored", one.name},
                       {"temperature", one.temperature},
                       {"bytes_per_token", one.bytes},
                       {"tokens", sum.rows},
                       {"logit_gradient_mse", one.logits / sum.logits},
                       {"hidden_gradient_mse", one.hidden / sum.hidden},
                       {"hidden_gradient_cosine", one.cosine / n},
                       {"mean_kl", sum.kl / n}};
    fmt::print("{}\n", line.dump());
  }
}

/// Microseconds a token that making rows takes, for logits of a language model's shape.
void time_rows(int64_t vocab, const CacheOptions& options) {
  constexpr int64_t tokens = 256;
  const RowMaker maker({at::arange(vocab).remainder(options.tail_clusters).to(at::kByte), options.tail_clusters},
                       options);
  const at::Tensor logits = 2.5 * at::randn({tokens, vocab});
  std::vector<int64_t> positions(tokens);
  std::iota(positions.begin(), positions.end(), 0);
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    maker.rows(logits, std::vector<int32_t>(tokens + 1), positions, 0);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const Json line = {{"vocabulary", vocab},
                     {"threads", at::get_num_threads()},
                     {"temperatures", options.temperatures.size()},
                     {"microseconds_per_token", 1e6 * best / tokens}};
  fmt::print("{}\n", line.dump());
}

/// The teacher's file in another type of llama.cpp, without some layers.
void make_student(const BenchOptions& options, const std::filesystem::path& path) {
  std::vector<int32_t> without = options.without;
  without.push_back(-1);  // llama.cpp's end of the list
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = static_cast<llama_ftype>(gguf_type(options.quantized).ftype);
  params.allow_requantize = true;
  params.prune_layers = without.data();
  if (llama_model_quantize(options.teacher.c_str(), path.c_str(), &params) != 0)
    fail(Exit::bad_input, "{}: llama.cpp does not quantize it to {}", options.teacher, options.quantized);
}

/// The output embedding, f32 [V, dim]: by GGUF's names where it is one, for architectures that are not trained here
/// too.
at::Tensor head_of(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    const auto checkpoint = Checkpoint::open(path);
    return CausalLM::load(*checkpoint, {})->linears().back()->weight().to(at::kFloat).clone();
  }
  const auto file = GgufFile::open(path);
  for (const char* name : {"output.weight", "token_embd.weight"})  // the second: a head that is tied to it
    if (const QuantizedTensor* tensor = file->find(name)) return tensor->dequantize();
  fail(Exit::bad_input, "{}: has neither output.weight nor token_embd.weight", path.string());
}

void run(BenchOptions options) {
  const at::NoGradGuard no_grad;
  at::manual_seed(0);
  const TemporaryFolder folder;
  if (!options.quantized.empty()) {
    options.student = (folder / "student.gguf").string();
    make_student(options, options.student);
  }
  const OpenedTeacher teacher = open_teacher({.path = options.teacher, .adapter = options.adapter});
  const OpenedTeacher student = open_teacher({.path = options.student});
  const at::Tensor head = head_of(options.student);
  const std::string text = read_text(options.text).substr(options.skip_bytes, 8 * options.tokens);
  std::vector<int32_t> ids;  // each window begins as a document does
  for (const int32_t id : teacher.tokenizer->encode(text, false)) {
    if (teacher.tokenizer->adds_bos() && ids.size() % window_tokens == 0) ids.push_back(teacher.tokenizer->bos());
    ids.push_back(id);
  }
  ids.resize(std::min<size_t>(ids.size(), options.tokens / window_tokens * window_tokens));
  const Windows data(std::move(ids));

  const auto start = std::chrono::steady_clock::now();
  const Cells cells = cluster_cells(head, teacher.tokenizer->size(), options.cache.tail_clusters, options.cache.seed);
  const std::chrono::duration<double> clustering = std::chrono::steady_clock::now() - start;
  const CacheSubject subject{teacher.model->identity(), teacher.tokenizer->hash(), "", head.size(0)};
  const CaptureReport report = capture(*teacher.model, data, cells, subject, options.cache, folder / "cache");
  const auto n = static_cast<double>(report.positions);
  const double bytes = static_cast<double>(report.bytes) / n;
  const Json line = {{"capture_tokens", report.positions},
                     {"bytes_per_token", bytes},
                     {"stored_tokens", describe_cache(folder / "cache")["stored_tokens_per_position"]},
                     {"parts", describe_cache(folder / "cache/logits-0-of-1-00000.h5")["parts"]},
                     {"tail_mass", describe_cache(folder / "cache")["tail_mass"]},
                     {"teacher_cross_entropy", describe_cache(folder / "cache")["teacher_cross_entropy_nats"]},
                     {"coding_nats", describe_cache(folder / "cache")["coding_nats"]},
                     {"hidden_nats", describe_cache(folder / "cache")["hidden_nats"]},
                     {"clustering_seconds", clustering.count()},
                     {"teacher_microseconds_per_token", 1e6 * report.teacher_seconds / n},
                     {"own_microseconds_per_token", 1e6 * (report.seconds - report.teacher_seconds) / n}};
  fmt::print("{}\n", line.dump());
  std::fflush(stdout);
  compare(options, *teacher.model, *student.model, *LogitCache::open(folder / "cache", subject), data, head, bytes);
}

}  // namespace
}  // namespace retort

int main(int argc, char** argv) {
  retort::BenchOptions options;
  CLI::App app{"Gradients from a cache against gradients from whole logits."};
  app.add_option("--time", options.time);
  app.add_option("--teacher", options.teacher);
  app.add_option("--teacher-adapter", options.adapter);
  app.add_option("--student", options.student);
  app.add_option("--student-quantized", options.quantized);
  app.add_option("--student-without", options.without)->delimiter(',');
  app.add_option("--text", options.text);
  app.add_option("--tokens", options.tokens);
  app.add_option("--skip-bytes", options.skip_bytes);
  app.add_option("--top-k", options.cache.top_k);
  app.add_option("--min-probability", options.cache.min_probability);
  app.add_option("--cells", options.cache.tail_clusters);
  app.add_option("--tail-samples", options.cache.tail_samples);
  app.add_option("--temperatures", options.cache.temperatures)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.time > 0)
      retort::time_rows(options.time, options.cache);
    else
      retort::run(options);
  } catch (const retort::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.exit());
  }
  return 0;
}
