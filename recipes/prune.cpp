#include "recipes/prune.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <numeric>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/signals.h"
#include "core/temporary_folder.h"
#include "data/gguf_vocabulary.h"
#include "export/hf_folder.h"
#include "models/pruned_checkpoint.h"
#include "recipes/prepare.h"
#include "recipes/prune_measure.h"
#include "recipes/stages.h"
#include "recipes/version.h"

namespace retort {
namespace {

/// What all steps look at.
struct Bench {
  const PruneRecipe& recipe;
  const Prepared& prepared;
  const LoadOptions load;
  CausalLM& teacher;
  std::vector<Batch> calibration;
  const ProgressSink& sink;
};

Recipe as_run(const PruneRecipe& recipe) {
  Recipe run;
  run.name = recipe.name;
  run.device = recipe.device;
  run.threads = recipe.threads;
  run.sources = recipe.sources;
  run.model.path = recipe.model.path;
  run.data = recipe.data;
  run.file = recipe.file;
  return run;
}

/// Windows from the first one on until they hold `tokens`; 0: all.
std::vector<Batch> windows_of(const PackedDataset& data, int64_t tokens, at::Device device) {
  std::vector<Batch> windows;
  int64_t found = 0;
  for (int64_t i = 0; i < data.windows() && (tokens == 0 || found < tokens); ++i) {
    windows.push_back(data.batch({&i, 1}));
    windows.back().ids = windows.back().ids.to(device);
    windows.back().labels = windows.back().labels.to(device);
    found += windows.back().tokens();
  }
  return windows;
}

void check_possible(const PruneRecipe& recipe, const ModelConfig& config) {
  const std::string where = recipe.file.string();
  if (const auto& layers = recipe.prune.layers) {
    const int64_t kept = layers->count ? *layers->count : static_cast<int64_t>(layers->keep.size());
    if (kept >= config.layers)
      fail(Exit::usage, "{} prune.layers: {} layers are to stay, the model has {}; keep fewer", where, kept,
           config.layers);
    if (!layers->keep.empty() && layers->keep.back() >= config.layers)
      fail(Exit::usage, "{} prune.layers.keep: there is no layer {}; allowed: 0 to {}", where, layers->keep.back(),
           config.layers - 1);
  }
  if (recipe.prune.mlp && recipe.prune.mlp->size >= config.ffn)
    fail(Exit::usage, "{} prune.mlp.size: {} channels are to stay, the model's MLPs have {}; keep fewer", where,
         recipe.prune.mlp->size, config.ffn);
}

std::vector<int64_t> evenly_spaced(int64_t count, int64_t layers) {
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < count; ++i)
    kept.push_back(count == 1 ? 0
                              : std::llround(static_cast<double>(i) * static_cast<double>(layers - 1) /
                                             static_cast<double>(count - 1)));
  return kept;
}

void stop_if_asked() {
  if (stop_signal()) fail(Exit::retry, "stopped by a signal; nothing was written");
}

/// Takes away one layer after the other, each time the one whose absence costs least. `steps` gets what each would
/// cost.
std::vector<int64_t> cheapest_to_lose(const Bench& bench, int64_t count, Json& steps) {
  const Checkpoint& base = *bench.prepared.checkpoint;
  const std::vector<at::Tensor> hidden = hidden_states(bench.teacher, bench.calibration);
  std::vector<int64_t> kept(static_cast<size_t>(base.config().layers));
  std::iota(kept.begin(), kept.end(), 0);
  Progress progress(bench.sink);
  int64_t candidates = 0, done = 0;
  for (int64_t n = base.config().layers; n > count; --n) candidates += n;
  progress.start("try layers", static_cast<uint64_t>(candidates));
  const double infinity = std::numeric_limits<double>::infinity();
  std::map<int64_t, double> cost;  // of each layer's absence, as last measured
  for (const int64_t layer : kept) cost[layer] = 0;
  while (static_cast<int64_t>(kept.size()) > count) {
    const bool first = steps.empty();   // the table of every layer's cost: none is left unfinished
    std::vector<int64_t> order = kept;  // the likely one first, so that the others are soon seen to cost more
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return cost[a] < cost[b]; });
    double least = infinity;
    int64_t removed = -1;
    for (const int64_t layer : order) {
      stop_if_asked();
      std::vector<int64_t> without = kept;
      std::erase(without, layer);
      const auto view = prune_while_reading(base, {.layers = without});
      const auto student = CausalLM::load(*view, bench.load);
      cost[layer] = divergence(bench.teacher, hidden, *student, bench.calibration, first ? infinity : least);
      if (cost[layer] < least) {
        least = cost[layer];
        removed = layer;
      }
      progress.update(static_cast<uint64_t>(++done), fmt::format("{} layers, KL {:.3f}", kept.size() - 1, least));
    }
    if (removed < 0)
      fail(Exit::bad_input, "{}: its logits are not finite on the calibration rows", base.path().string());
    Json step = {{"removed", removed}, {"kl", least}};
    if (first)
      for (const auto& [layer, kl] : cost) step["tried"].push_back({{"layer", layer}, {"kl", kl}});
    steps.push_back(step);
    std::erase(kept, removed);
    cost.erase(removed);
  }
  progress.finish();
  return kept;
}

Json prune_layers(const Bench& bench, Pruning& kept) {
  const PruneLayers& options = *bench.recipe.prune.layers;
  Json steps = Json::array();
  if (!options.keep.empty())
    kept.layers = options.keep;
  else if (options.by == "even")
    kept.layers = evenly_spaced(*options.count, bench.teacher.config().layers);
  else
    kept.layers = cheapest_to_lose(bench, *options.count, steps);
  Json result = {{"before", bench.teacher.config().layers}, {"kept", kept.layers}};
  if (!steps.empty()) result["steps"] = steps;
  return result;
}

Json prune_mlp(const Bench& bench, Pruning& kept) {
  const PruneMlp& options = *bench.recipe.prune.mlp;
  const int64_t size = options.size / options.multiple * options.multiple;
  const auto view = prune_while_reading(*bench.prepared.checkpoint, kept);
  const auto model = CausalLM::load(*view, bench.load);
  Json shares = Json::array();
  for (const at::Tensor& scores : channel_contributions(*view, *model, bench.calibration)) {
    const at::Tensor best = std::get<0>(std::get<1>(scores.topk(size)).sort());
    kept.channels.emplace_back(best.const_data_ptr<int64_t>(), best.const_data_ptr<int64_t>() + size);
    const at::Tensor squares = scores.square();
    shares.push_back((squares.index_select(0, best).sum() / squares.sum()).item<double>());
  }
  return {{"before", view->config().ffn}, {"kept", size}, {"contribution", shares}};
}

/// Which tokens stay, and the vocabulary of them.
Json prune_vocabulary(const Bench& bench, Pruning& kept, GgufVocabulary& vocabulary) {
  vocabulary = read_vocabulary(bench.prepared.model_path);
  const PackedDataset& data = *bench.prepared.train;
  std::vector<int64_t> counts(vocabulary.tokens.size(), 0);
  for (int64_t i = 0; i < data.windows(); ++i) {
    const at::Tensor ids = data.batch({&i, 1}).ids.contiguous();
    for (int64_t t = 0; t < ids.numel(); ++t) ++counts.at(static_cast<size_t>(ids.const_data_ptr<int64_t>()[t]));
  }
  std::vector<bool> wanted;
  int64_t used = 0;
  for (const int64_t count : counts) {
    wanted.push_back(count >= bench.recipe.prune.vocabulary->min_count);
    used += wanted.back();
  }
  kept.tokens = closed_under_merges(vocabulary, wanted);
  vocabulary = cut_vocabulary(vocabulary, kept.tokens);
  return {{"before", bench.teacher.config().vocab},
          {"used", used},
          {"kept", kept.tokens.size()},
          {"merges", vocabulary.merges.size()}};
}

/// UTF-8 bytes of the trained tokens' text.
int64_t trained_bytes(const Tokenizer& tokenizer, const std::vector<Batch>& windows) {
  int64_t bytes = 0;
  for (const Batch& window : windows) {
    const at::Tensor labels = window.labels.to(at::kCPU).contiguous();
    for (int64_t t = 0; t < labels.numel(); ++t) {
      const auto id = static_cast<int32_t>(labels.const_data_ptr<int64_t>()[t]);
      if (id < 0 || tokenizer.decode({&id, 1}).empty()) continue;  // not trained, or a special token
      bytes += static_cast<int64_t>(tokenizer.piece(id).size());
    }
  }
  return bytes;
}

Json loss_json(const RowLoss& loss, int64_t bytes) {
  return {{"perplexity", std::exp(loss.nats / static_cast<double>(loss.tokens))},
          {"bits_per_byte", loss.nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(bytes, 1))},
          {"tokens", loss.tokens}};
}

/// The held-out rows in the student's own tokens.
std::vector<Batch> rows_of_student(const Bench& bench, const GgufVocabulary& vocabulary) {
  const TemporaryFolder folder;
  write_tokenizer_files(vocabulary, folder.path(), bench.prepared.model_path.string());
  const auto tokenizer = Tokenizer::open(folder.path());
  const Recipe run = as_run(bench.recipe);
  const ChatTemplate chat_template(*tokenizer, chat_template_of(run));
  const auto data =
      build_dataset(chats_of(bench.prepared.validation_files), *tokenizer, chat_template,
                    {.encode = encode_options(run), .packing = run.data.packing}, bench.prepared.validation_hash);
  return windows_of(*data, 0, bench.load.device);
}

Json compare_on_rows(const Bench& bench, CausalLM& student, const Pruning& kept, const GgufVocabulary& vocabulary) {
  Progress progress(bench.sink);
  progress.start("compare", 3);
  const std::vector<Batch> rows = windows_of(*bench.prepared.validation, 0, bench.load.device);
  const int64_t bytes = trained_bytes(*bench.prepared.tokenizer, rows);
  const std::vector<at::Tensor> hidden = hidden_states(bench.teacher, rows);
  Json result = {{"before", loss_json(loss_on(bench.teacher, hidden, rows), bytes)}};
  progress.update(1);
  const std::vector<Batch> own = kept.tokens.empty() ? rows : rows_of_student(bench, vocabulary);
  result["after"] = loss_json(loss_on(student, hidden_states(student, own), own), bytes);
  progress.update(2);
  const Fidelity fidelity = compare(bench.teacher, hidden, student, rows, kept.tokens);
  result["after"]["kl"] = fidelity.kl;
  result["after"]["top1"] = fidelity.top1;
  result["after"]["compared_tokens"] = fidelity.tokens;
  if (!kept.tokens.empty()) result["after"]["lost_mass"] = fidelity.lost;
  progress.update(3);
  progress.finish();
  return result;
}

}  // namespace

Json prune_model(const PruneRecipe& recipe, const ProgressSink& progress) {
  const Stopwatch stopwatch;
  const Recipe run = as_run(recipe);
  { const AtomicFolder writable(recipe.output); }
  const Prepared prepared = prepare(run, std::time(nullptr), progress);
  const Checkpoint& base = *prepared.checkpoint;
  check_possible(recipe, base.config());
  const std::string type = hf_type(base, recipe.type);

  const LoadOptions load = load_options(run);
  const auto teacher = CausalLM::load(base, load);
  const Bench bench{
      recipe,  prepared, load, *teacher, windows_of(*prepared.train, recipe.prune.calibration_tokens, load.device),
      progress};
  Pruning kept;
  GgufVocabulary vocabulary;
  Json report = {{"schema", 1},
                 {"name", recipe.name},
                 {"retort", version()},
                 {"teacher", {{"uri", source_of(run, recipe.model.path).uri}, {"sha256", base.hash()}}},
                 {"type", type}};
  if (recipe.prune.layers) report["layers"] = prune_layers(bench, kept);
  if (recipe.prune.mlp) report["mlp"] = prune_mlp(bench, kept);
  if (recipe.prune.vocabulary) report["vocabulary"] = prune_vocabulary(bench, kept, vocabulary);
  stop_if_asked();

  const auto view = prune_while_reading(base, kept);
  const auto student = CausalLM::load(*view, load);
  report["parameters"] = {{"before", teacher->parameter_count()}, {"after", student->parameter_count()}};
  report["validation"] = compare_on_rows(bench, *student, kept, vocabulary);
  report["seconds"] = stopwatch.seconds();
  const ExportedFile file = export_hf_folder(recipe.output, *view, *student,
                                             {.type = type,
                                              .chat_template = chat_template_of(run),
                                              .vocabulary = kept.tokens.empty() ? nullptr : &vocabulary,
                                              .with = {{"prune.json", report}}});
  report["path"] = file.path.string();
  report["bytes"] = file.bytes;
  return report;
}

}  // namespace retort
