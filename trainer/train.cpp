#include "trainer/train.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <numeric>
#include <set>

#include "adapters/attach.h"
#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/progress.h"
#include "core/signals.h"
#include "trainer/checkpoint.h"
#include "trainer/optimizer.h"
#include "trainer/schedule.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double wall_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

Batch load_batch(const PackedDataset& data, std::span<const int64_t> windows, at::Device device) {
  Batch batch = data.batch(windows);
  batch.ids = batch.ids.to(device);
  batch.labels = batch.labels.to(device);
  return batch;
}

int64_t trained_tokens(const PackedDataset& data, std::span<const int64_t> windows) {
  int64_t count = 0;
  for (const int64_t window : windows) count += data.window_trained(window);
  return count;
}

int64_t memory_now(at::Device device) {
  if (device.is_cpu()) return static_cast<int64_t>(resident_bytes());
  return at::accelerator::getDeviceStats(device.index()).allocated_bytes[0].current;
}

int64_t memory_peak(at::Device device) {
  if (device.is_cpu()) return static_cast<int64_t>(peak_resident_bytes());
  return at::accelerator::getDeviceStats(device.index()).allocated_bytes[0].peak;
}

/// What a resumed run must share with the one that wrote the checkpoint. Keys that change only how often something is
/// written or how memory is spent are left out.
Json run_identity(const TrainOptions& options, const TrainRun& run, const PackedDataset& data,
                  const PackedDataset* validation, const std::vector<Parameter>& parameters, int64_t steps) {
  static const std::set<std::string> free{"logging_steps",
                                          "save_steps",
                                          "save_total_limit",
                                          "gradient_checkpointing",
                                          "gradient_checkpointing_every",
                                          "activation_offloading",
                                          "fit"};
  Json identity = run.identity;
  const Json recipe = to_json(options);
  for (const auto& [key, value] : recipe.items())
    if (!free.contains(key)) identity["train." + key] = value;
  identity["seed"] = run.seed;
  identity["train steps"] = steps;
  identity["data.train"] = data.key();
  identity["data.validation"] = validation ? Json(validation->key()) : Json(nullptr);
  std::string shapes;
  for (const auto& p : parameters) shapes += fmt::format("{} [{}]\n", p.name, fmt::join(p.tensor.sizes(), ", "));
  identity["trainable parameters"] = sha256_hex(shapes);
  return identity;
}

/// One run: the loop's variables, and a function for each thing that happens after an update.
struct Loop {
  CausalLM& model;
  const PackedDataset& data;
  const PackedDataset* validation;
  const Objective& objective;
  const TrainOptions& options;
  const TrainRun& run;
  const TrainCallbacks& callbacks;
  const int64_t steps;
  const Schedule schedule;
  const Json identity;
  Optimizer optimizer;
  Loader loader;
  TrainState state = {};
  int64_t saved_step = -1;

  fs::path checkpoints() const { return run.folder / "checkpoints"; }
  double epoch() const {
    return static_cast<double>(loader.epoch()) +
           static_cast<double>(loader.position()) / static_cast<double>(data.windows());
  }

  /// Updates until all `steps` are made, patience ends or a signal comes.
  void go(MetricsLog& log);

  /// Forward, backward and the update for the next accumulated batch.
  StepMetrics update();
  /// True when early stopping has had enough.
  bool validate_now();
  void save(MetricsLog& log);
  [[noreturn]] void stop_nonfinite(std::span<const int64_t> windows, int64_t trained, std::span<const double> losses,
                                   double norm);
  void write_metrics(MetricsLog& log, StepMetrics metrics, bool validated);
};

StepMetrics Loop::update() {
  const double start = now();
  const std::vector<int64_t> windows = loader.next(options.windows_per_step());
  const std::span<const int64_t> all(windows);
  const int64_t trained = trained_tokens(data, all);
  if (trained == 0)
    fail(Exit::bad_input, "step {}: the batch has no trained token (windows {})", state.step + 1,
         fmt::join(windows, ", "));
  optimizer.zero_grad();

  const ForwardOptions forward{.training = true,
                               .checkpointing = options.gradient_checkpointing,
                               .checkpoint_every = options.gradient_checkpointing_every,
                               .offload = options.activation_offloading};
  std::vector<at::Tensor> losses, counted;
  int64_t tokens = 0;
  for (size_t begin = 0; begin < windows.size(); begin += static_cast<size_t>(options.micro_batch_size)) {
    const auto part =
        all.subspan(begin, std::min<size_t>(static_cast<size_t>(options.micro_batch_size), all.size() - begin));
    const Batch batch = load_batch(data, part, model.device());
    set_micro_step(model, static_cast<uint64_t>(state.step * options.gradient_accumulation_steps) + losses.size());
    const at::Tensor loss = objective(model, batch, part, forward);
    (loss / static_cast<double>(trained)).backward();
    losses.push_back(loss.detach());
    tokens += batch.tokens();
    counted.push_back(batch.labels.ge(0).sum());
  }
  // One wait for the device a step: all losses come at once.
  const at::Tensor sums = at::stack(losses).to(at::kCPU, at::kDouble).contiguous();
  const std::span<const double> sum(sums.data_ptr<double>(), losses.size());
  const double total = std::accumulate(sum.begin(), sum.end(), 0.0);
  if (const auto labels = at::stack(counted).sum().item<int64_t>(); labels != trained)
    fail(Exit::bad_input,
         "step {}: the data set says that windows {} have {} trained tokens, their labels have {}. Remove its "
         "cache file and run again",
         state.step + 1, fmt::join(windows, ", "), trained, labels);
  const double norm = optimizer.clip(options.max_grad_norm);
  if (!std::isfinite(total) || !std::isfinite(norm)) stop_nonfinite(all, trained, sum, norm);
  const double rate = schedule.rate(state.step);
  optimizer.step(rate);

  state.loss_last = total / static_cast<double>(trained);
  if (state.step == 0) state.loss_first = state.loss_last;
  ++state.step;
  state.tokens += tokens;
  state.trained_tokens += trained;
  state.pending_loss += total;
  state.pending_trained += trained;
  state.pending_tokens += tokens;
  const double seconds = now() - start;
  state.seconds += seconds;
  state.pending_seconds += seconds;
  std::map<std::string, double> measured;
  if (run.objective) {
    const double progress = static_cast<double>(state.step) / static_cast<double>(steps);
    for (const auto& changes : run.objective->after_update) changes(progress, state.loss_last);
    for (const auto& [name, sum] : run.objective->sums)
      measured[name] = sum / static_cast<double>(state.pending_trained);
  }
  return {.step = state.step,
          .epoch = epoch(),
          .loss = state.pending_loss / static_cast<double>(state.pending_trained),
          .learning_rate = rate,
          .grad_norm = norm,
          .tokens = state.tokens,
          .trained_tokens = state.trained_tokens,
          .measured = std::move(measured),
          .tokens_per_second = static_cast<double>(state.pending_tokens) / state.pending_seconds};
}

// A folder to look at: the adapter as it was before the update, which rows were in the batch, which gradients broke.
void Loop::stop_nonfinite(std::span<const int64_t> windows, int64_t trained, std::span<const double> losses,
                          double norm) {
  const fs::path path = checkpoints() / fmt::format("nonfinite-{:06}", state.step + 1);
  const auto norms = optimizer.grad_norms();
  // JSON has no nan or inf.
  auto shown = [](double value) { return std::isfinite(value) ? Json(value) : Json(fmt::format("{}", value)); };
  Json report{{"step", state.step + 1},
              {"learning_rate", schedule.rate(state.step)},
              {"grad_norm", shown(norm)},
              {"data", data.key()},
              {"epoch", loader.epoch()},
              {"windows", std::vector<int64_t>(windows.begin(), windows.end())},
              {"trained_tokens", trained},
              {"micro_batch_size", options.micro_batch_size},
              {"micro_batch_losses", Json::array()},
              {"parameter_grad_norms", Json::object()}};
  for (const double loss : losses) report["micro_batch_losses"].push_back(shown(loss));
  std::string first;
  for (size_t i = 0; i < norms.size(); ++i) {
    const auto& name = optimizer.parameters()[i].name;
    report["parameter_grad_norms"][name] = shown(norms[i]);
    if (first.empty() && !std::isfinite(norms[i])) first = name;
  }
  AtomicFolder folder(path);
  run.save_adapter(folder.temporary() / "adapter");
  write_json(folder.temporary() / "nonfinite.json", report);
  folder.commit();
  fail(Exit::internal,
       "step {}: the loss ({} nats) or the gradient (norm {}{}) is not finite. Adapter, batch and gradient norms are "
       "in {}. Try a "
       "lower train.learning_rate, more warm-up, or model.dtype: f32",
       state.step + 1, std::accumulate(losses.begin(), losses.end(), 0.0), norm,
       first.empty() ? "" : ", first in " + first, path.string());
}

bool Loop::validate_now() {
  const double loss = validate(model, *validation, options.micro_batch_size).loss;
  state.validation_loss = loss;
  if (!state.best || loss < state.best->validation_loss - options.early_stopping_threshold) {
    state.best = Best{state.step, loss};
    state.evaluations_without_improvement = 0;
  } else {
    ++state.evaluations_without_improvement;
  }
  return options.early_stopping_patience && state.evaluations_without_improvement >= *options.early_stopping_patience;
}

void Loop::save(MetricsLog& log) {
  if (saved_step == state.step) return;
  state.lengths = log.sync();
  state.peak_memory_bytes = std::max(state.peak_memory_bytes, memory_peak(model.device()));
  save_checkpoint(checkpoint_path(checkpoints(), state.step), optimizer, loader, state, identity, run.objective.get(),
                  run.save_adapter);
  saved_step = state.step;
  prune_checkpoints(checkpoints(), options.save_total_limit, state.best);
}

void Loop::write_metrics(MetricsLog& log, StepMetrics metrics, bool validated) {
  if (validated) metrics.validation_loss = state.validation_loss;
  metrics.memory_bytes = memory_now(model.device());
  metrics.wall_time = wall_now();
  log.write(metrics);
  state.pending_loss = state.pending_seconds = 0;
  state.pending_trained = state.pending_tokens = 0;
  if (run.objective) run.objective->sums.clear();
  if (callbacks.on_metrics) callbacks.on_metrics(metrics);
}

void Loop::go(MetricsLog& log) {
  Progress progress(callbacks.progress);
  progress.start("train", static_cast<uint64_t>(steps), false, static_cast<uint64_t>(state.step));
  while (state.step < steps && !state.stopped_early) {
    const StepMetrics metrics = update();
    if (callbacks.on_step) callbacks.on_step(state.step);
    const bool last = state.step == steps;
    const auto due = [&](const std::optional<int64_t>& every) { return every && state.step % *every == 0; };
    const bool validated = validation && (last || due(options.eval_steps));
    if (validated) state.stopped_early = validate_now() && !last;
    const bool improved = validated && state.best->step == state.step;
    if (validated || last || state.step == 1 || state.step % options.logging_steps == 0)
      write_metrics(log, metrics, validated);
    progress.update(static_cast<uint64_t>(state.step),
                    fmt::format("loss {:.4f}  {:.0f} tokens/s  {:.2f} GB", metrics.loss, metrics.tokens_per_second,
                                1e-9 * static_cast<double>(memory_now(model.device()))));
    const bool stop = stop_signal() != 0;
    if (improved || last || stop || state.stopped_early || due(options.save_steps)) save(log);
    if (stop && !last && !state.stopped_early)
      fail(Exit::retry, "stopped by a signal after step {} of {}; {} is written. Go on with --resume", state.step,
           steps, checkpoint_path(checkpoints(), state.step).string());
  }
  progress.finish();
}

}  // namespace

int64_t total_steps(const TrainOptions& options, int64_t windows) {
  if (options.max_steps) return *options.max_steps;
  const int64_t per_epoch = (windows + options.windows_per_step() - 1) / options.windows_per_step();
  return std::max<int64_t>(1,
                           static_cast<int64_t>(std::ceil(options.num_train_epochs * static_cast<double>(per_epoch))));
}

Objective cross_entropy_objective() {
  return [](CausalLM& model, const Batch& batch, std::span<const int64_t>, const ForwardOptions& options) {
    return model.cross_entropy(model.hidden(batch, options), batch.labels);
  };
}

Validation validate(CausalLM& model, const PackedDataset& data, int64_t windows_per_batch) {
  at::NoGradGuard no_grad;
  Validation out;
  double sum = 0;
  for (int64_t begin = 0; begin < data.windows(); begin += windows_per_batch) {
    std::vector<int64_t> windows(static_cast<size_t>(std::min(windows_per_batch, data.windows() - begin)));
    std::iota(windows.begin(), windows.end(), begin);
    const Batch batch = load_batch(data, windows, model.device());
    sum += model.cross_entropy(model.hidden(batch), batch.labels).item<double>();
    out.tokens += batch.tokens();
    out.trained_tokens += trained_tokens(data, windows);
  }
  if (out.trained_tokens == 0) fail(Exit::bad_input, "the validation data have no trained token");
  out.loss = sum / static_cast<double>(out.trained_tokens);
  return out;
}

TrainResult train(CausalLM& model, const std::vector<Parameter>& parameters, const PackedDataset& data,
                  const PackedDataset* validation, const Objective& objective, const TrainOptions& options,
                  const TrainRun& run, const TrainCallbacks& callbacks) {
  if (data.windows() == 0) fail(Exit::bad_input, "the training data have no rows");
  if (validation && validation->windows() == 0) fail(Exit::bad_input, "the validation data have no rows");
  check_validation(options, validation != nullptr);
  const int64_t steps = total_steps(options, data.windows());
  std::vector<Parameter> trained = parameters;
  if (run.objective) trained.insert(trained.end(), run.objective->parameters.begin(), run.objective->parameters.end());
  at::manual_seed(run.seed);
  reset_peak_resident_bytes();
  Loop loop{.model = model,
            .data = data,
            .validation = validation,
            .objective = objective,
            .options = options,
            .run = run,
            .callbacks = callbacks,
            .steps = steps,
            .schedule = make_schedule(options, steps),
            .identity = run_identity(options, run, data, validation, trained, steps),
            .optimizer = Optimizer(trained, options, run.seed),
            .loader = Loader(data, run.seed)};
  TrainState& state = loop.state;

  const auto found = list_checkpoints(loop.checkpoints());
  if (!found.empty() && !run.resume)
    fail(Exit::usage, "{}: holds checkpoints of an earlier run. Continue it with --resume, or choose another folder",
         loop.checkpoints().string());
  if (!found.empty()) {
    state = load_checkpoint(found.back().path, loop.optimizer, loop.loader, loop.identity, run.objective.get());
    loop.saved_step = state.step;
    log::info("continuing from {} ({} of {} steps)", found.back().path.string(), state.step, steps);
  }
  MetricsLog metrics(run.folder, state.lengths);
  loop.go(metrics);

  TrainResult result{.steps = state.step,
                     .epochs = loop.epoch(),
                     .tokens = state.tokens,
                     .trained_tokens = state.trained_tokens,
                     .seconds = state.seconds,
                     .tokens_per_second = static_cast<double>(state.tokens) / state.seconds,
                     .peak_memory_bytes = std::max(state.peak_memory_bytes, memory_peak(model.device())),
                     .loss_first = state.loss_first,
                     .loss_last = state.loss_last,
                     .validation_loss = state.validation_loss,
                     .stopped_early = state.stopped_early,
                     .checkpoint = checkpoint_path(loop.checkpoints(), state.step)};
  if (state.best) {
    result.best_validation_loss = state.best->validation_loss;
    result.best_step = state.best->step;
    result.best_checkpoint = checkpoint_path(loop.checkpoints(), state.best->step);
    if (options.load_best_model_at_end || options.early_stopping_patience) {
      load_parameters(*result.best_checkpoint, parameters);
      result.loaded_best = true;
    }
  }
  return result;
}

}  // namespace retort
