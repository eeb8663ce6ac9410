#include "recipes/run.h"

#include <ATen/Parallel.h>
#include <fmt/chrono.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <torch/version.h>

#include <fstream>

#include "adapters/attach.h"
#include "adapters/peft.h"
#include "core/cpu.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/signals.h"
#include "recipes/distill.h"
#include "recipes/guards.h"
#include "recipes/prepare.h"
#include "recipes/run_folder.h"
#include "recipes/stages.h"
#include "recipes/version.h"
#include "report/report.h"
#include "trainer/train.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// The run's log file, beside what cli shows, for as long as the object lives.
class LogFile {
 public:
  explicit LogFile(const fs::path& path) : sink_(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string())) {
    sink_->set_level(spdlog::level::debug);
    spdlog::default_logger()->sinks().push_back(sink_);
  }
  ~LogFile() { std::erase(spdlog::default_logger()->sinks(), sink_); }
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

 private:
  spdlog::sink_ptr sink_;
};

void stop_if_asked(const char* next) {
  if (stop_signal()) fail(Exit::retry, "stopped by a signal before {}. Go on with --resume", next);
}

/// When the run first started: a chat template may print the date, and a resumed run must print the same one.
std::time_t started_at(const RunFolder& folder) {
  const fs::path manifest = folder.path / "manifest.json";
  return fs::exists(manifest) ? json_get<int64_t>(read_json(manifest), "started", manifest.string())
                              : std::time(nullptr);
}

Json manifest_of(const Recipe& recipe, const Prepared& prepared, std::time_t started) {
  Json files = Json::array();
  for (const auto* list : {&prepared.train_files, &prepared.validation_files})
    for (const DatasetOptions& file : *list) files.push_back({{"path", file.path.string()}, {"split", file.split}});
  return {{"schema", 1},
          {"started", started},
          {"retort", version()},
          {"libtorch", TORCH_VERSION},
          {"recipe", recipe.hash},
          {"seed", recipe.seed},
          {"base", {{"uri", source_of(recipe, recipe.model.path).uri}, {"sha256", prepared.checkpoint->hash()}}},
          {"tokenizer", prepared.tokenizer->hash()},
          {"chat_template", prepared.chat_template->hash()},
          {"data",
           {{"files", files},
            {"train", prepared.train->key()},
            {"validation", prepared.validation ? Json(prepared.validation->key()) : Json()}}}};
}

/// What a checkpoint must find unchanged, beside what the trainer itself adds.
Json identity_of(const Recipe& recipe, const Prepared& prepared) {
  Json identity = {{"base", prepared.checkpoint->hash()}, {"chat_template", prepared.chat_template->hash()}};
  const Json adapter = to_json(recipe.adapter);
  for (const auto& [key, value] : adapter.items()) identity["adapter." + key] = value;
  identity["model.base"] = recipe.model.base;
  identity["model.double_quantization"] = recipe.model.double_quantization;
  identity["model.dtype"] = recipe.model.dtype;
  return identity;
}

Json curve_of(const fs::path& folder) {
  Json curve = Json::array();
  std::ifstream lines(folder / "metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const Json metrics = parse_json(line, (folder / "metrics.jsonl").string());
    Json point = {{"step", metrics["step"]}, {"loss", metrics["loss"]}, {"learning_rate", metrics["learning_rate"]}};
    if (metrics.contains("validation_loss")) point["validation_loss"] = metrics["validation_loss"];
    curve.push_back(point);
  }
  return curve;
}

Json train_json(const TrainOptions& options, const TrainResult& result, const AttachReport& attached, CausalLM& model,
                const fs::path& folder) {
  Json train = {{"steps", result.steps},
                {"tokens", result.tokens},
                {"trained_tokens", result.trained_tokens},
                {"tokens_per_second", result.tokens_per_second},
                {"peak_memory_bytes", result.peak_memory_bytes},
                {"loss_first", result.loss_first},
                {"loss_last", result.loss_last},
                {"parameters", {{"trainable", attached.trainable}, {"frozen", attached.frozen}}},
                {"stopped_early", result.stopped_early},
                {"targets", targets_of(model)},
                {"options", to_json(options)},
                {"curve", curve_of(folder)}};
  if (result.validation_loss) train["validation_loss"] = *result.validation_loss;
  if (result.best_validation_loss) {
    train["best_validation_loss"] = *result.best_validation_loss;
    train["best_step"] = result.best_step;
  }
  return train;
}

/// The recipe's data sets under its own names, not those of the cache.
Json files_of(const Recipe& recipe, const Prepared& prepared) {
  Json files = Json::array();
  const auto add = [&](const std::vector<DatasetOptions>& named, const std::vector<DatasetOptions>& local) {
    for (size_t i = 0; i < named.size(); ++i)
      files.push_back({{"name", source_of(recipe, named[i].path).uri},
                       {"split", named[i].split},
                       {"sha256", dataset_hash(local[i])}});
  };
  add(recipe.data.train, prepared.train_files);
  add(recipe.data.validation, prepared.validation_files);
  return files;
}

/// What always giving the most frequent answer would score, beside each accuracy.
void add_majority(const std::vector<EvaluationRow>& rows, Json& report) {
  for (Json& entry : report["evaluate"]) {
    if (entry["kind"] != "choice_accuracy" && entry["kind"] != "exact_match") continue;
    std::map<std::string, int64_t> counts;
    const auto n = std::min<size_t>(rows.size(), entry["n"].get<size_t>());
    for (size_t i = 0; i < n; ++i) ++counts[rows[i].expected];
    int64_t most = 0;
    for (const auto& [answer, count] : counts) most = std::max(most, count);
    entry["majority"] = static_cast<double>(most) / static_cast<double>(std::max<size_t>(n, 1));
  }
}

/// Puts the answers into report["samples"] under `who`, beside those that other models gave to the same rows.
void add_samples(const std::vector<Sample>& samples, const char* who, Json& report) {
  Json& list = report["samples"];
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    if (i == list.size())
      list.push_back({{"key", sample.key}, {"prompt", sample.prompt}, {"expected", sample.expected}});
    list[i][who] = sample.generated;
  }
}

/// {"recipe", "seconds", "evaluate", "samples"} of the base, in llama.cpp where it is a file that llama.cpp can serve.
/// Measured once: it is kept in the run's folder, and a run that goes on reads it again.
Json evaluate_base(const Recipe& recipe, const Prepared& prepared, const std::vector<EvaluationRow>& rows,
                   CausalLM& model, const RunFolder& folder, const ProgressSink& progress) {
  const fs::path file = folder.path / "base.json";
  if (fs::exists(file)) {
    Json kept = read_json(file);
    if (json_get<std::string>(kept, "recipe", file.string()) == recipe.hash) return kept;
  }
  Json base = {{"recipe", recipe.hash}, {"evaluate", Json::array()}, {"samples", Json::array()}};
  const Stopwatch watch;
  if (prepared.checkpoint->is_gguf())
    add_samples(evaluate_file(recipe, prepared, rows, prepared.model_path, {}, "base", base, progress), "base", base);
  else
    evaluate_model(recipe, prepared, rows, model, "base", base, progress);
  base["seconds"] = watch.seconds();
  write_json(file, base);
  return base;
}

}  // namespace

RunOutcome run_recipe(const Recipe& recipe, bool resume, const ProgressSink& progress) {
  const Stopwatch total;
  const RunFolder folder = open_run_folder(recipe, resume);
  const LogFile log_file(folder.path / "log.txt");
  log::info("{} {}", folder.resumed ? "going on in" : "run", folder.path.string());
  const std::time_t started = started_at(folder);
  const Prepared prepared = prepare(recipe, started, progress);
  const auto model = CausalLM::load(*prepared.checkpoint, load_options(recipe));
  check_against_model(recipe, prepared, *model);
  if (!fs::exists(folder.path / "manifest.json"))
    write_json(folder.path / "manifest.json", manifest_of(recipe, prepared, started));
  copy_atomic(prepared.audit, folder.path / "audit.jsonl");
  const std::vector<EvaluationRow> rows = evaluation_rows(recipe, prepared);

  RunOutcome outcome{.folder = folder.path, .report = {{"schema", 1}, {"name", recipe.name}}, .refused = false};
  Json& report = outcome.report;
  report["created"] = fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(started));
  report["retort"] = version();
  report["seconds"] = Json::object();
  report["data"] = {{"ledger", prepared.train->ledger().to_json()}, {"files", files_of(recipe, prepared)}};
  report["guards"] = guards_json(prepared.guards);
  report["export"] = Json::array();

  // Before anything is attached. What a resumed run finds done counts as if it had been done now.
  const Stopwatch base_watch;
  const Json base = evaluate_base(recipe, prepared, rows, *model, folder, progress);
  const double base_seconds = json_get<double>(base, "seconds", "base.json");
  double earlier_seconds = std::max(0.0, base_seconds - base_watch.seconds());
  report["evaluate"] = base["evaluate"];
  report["samples"] = base["samples"];
  std::optional<Distillation> distillation;
  Json before;  // the student against its teachers
  if (recipe.distill) {
    const Stopwatch watch;
    distillation = open_distillation(recipe, prepared, *model, progress);
    before = against_teachers(recipe, prepared, *model, *distillation, progress);
    evaluate_teachers(recipe, prepared, *distillation, rows, report, progress);
    close_cached_teachers(recipe, *distillation);
    report["seconds"]["teachers"] = watch.seconds();
  }
  stop_if_asked("training");

  const AttachReport attached =
      attach(*model, recipe.adapter, static_cast<uint64_t>(recipe.seed), original_weights(*prepared.checkpoint));
  const AdapterOrigin origin{.base = source_of(recipe, recipe.model.path).uri,
                             .base_hash = prepared.checkpoint->hash(),
                             .base_form = base_form(recipe),
                             .template_hash = prepared.chat_template->hash(),
                             .data_hash = prepared.train->key()};
  Json identity = identity_of(recipe, prepared);
  if (distillation) identity.update(distillation->identity);
  TrainRun run{.folder = folder.path,
               .seed = static_cast<uint64_t>(recipe.seed),
               .resume = folder.resumed,
               .identity = std::move(identity),
               .objective = distillation ? distillation->state : nullptr,
               .save_adapter = [&](const fs::path& path) { save_peft(path, *model, recipe.adapter, origin); }};
  const Fit fit = fitted(recipe, prepared, *model, folder.path);
  if (recipe.train.fit) log::info("train.fit: {}", fit.reason);
  const Stopwatch train_watch;
  const TrainResult result = train(*model, trainable_parameters(*model), *prepared.train, prepared.validation.get(),
                                   distillation ? distillation->objective : cross_entropy_objective(), fit.options, run,
                                   {.progress = progress});
  const double earlier_steps = std::max(0.0, result.seconds - train_watch.seconds());
  earlier_seconds += earlier_steps;
  report["seconds"]["train"] = train_watch.seconds() + earlier_steps;
  report["train"] = train_json(fit.options, result, attached, *model, folder.path);
  if (recipe.train.fit) report["train"]["fit"] = fit.reason;
  save_peft(folder.path / "adapter", *model, recipe.adapter, origin);
  if (distillation) {
    report["distill"] = distillation->report;
    report["distill"]["before"] = before;
    report["distill"]["after"] = against_teachers(recipe, prepared, *model, *distillation, progress);
    distillation.reset();  // the teachers' memory
  }
  stop_if_asked("the export");

  const Stopwatch export_watch;
  outcome.refused = !export_and_gate(recipe, prepared, *model, started, folder, report, progress);
  report["seconds"]["export"] = export_watch.seconds();
  stop_if_asked("the evaluation");

  const Stopwatch evaluate_watch;
  evaluate_model(recipe, prepared, rows, *model, "trained", report, progress);
  for (const Json& file : report["export"]) {
    if (file["format"] != "gguf") continue;
    const fs::path path = folder.path / file["path"].get<std::string>();
    const std::string on = "shipped:" + file["type"].get<std::string>();
    const std::vector<Sample> answers =
        file.contains("adapter")
            ? evaluate_file(recipe, prepared, rows, path, folder.path / file["adapter"].get<std::string>(),
                            on + "+adapter", report, progress)
            : evaluate_file(recipe, prepared, rows, path, {}, on, report, progress);
    add_samples(answers, "tuned", report);
  }
  add_majority(rows, report);
  report["seconds"]["evaluate"] = base_seconds + evaluate_watch.seconds();
  report["seconds"]["total"] = total.seconds() + earlier_seconds;
  report["model"] = {{"path", prepared.model_path.string()},
                     {"source", source_of(recipe, recipe.model.path).uri},
                     {"base", recipe.model.base},
                     {"family", prepared.checkpoint->config().family},
                     {"sha256", prepared.checkpoint->hash()}};
  if (!prepared.checkpoint->is_gguf()) {  // what transformers' from_pretrained takes
    const std::string uri = source_of(recipe, recipe.model.path).uri;
    report["model"]["hub_id"] =
        uri.starts_with("hf://") ? uri.substr(5, uri.find('@') - 5) : prepared.model_path.string();
  }
  report["adapter"] = to_json(recipe.adapter);
  report["environment"] = {{"Retort", version()},
                           {"LibTorch", TORCH_VERSION},
                           {"processor", cpu().model},
                           {"threads", at::get_num_threads()},
                           {"device", model->device().str()},
                           {"seed", recipe.seed},
                           {"recipe", recipe.hash},
                           {"data", prepared.train->key()},
                           {"chat template", prepared.chat_template->hash()}};
  report["recipe"] = recipe.text;
  report["commands"] = serve_commands(report);
  write_atomic(folder.path / "report.html", render_report(report));
  write_json(folder.path / "report.json", report);
  mark_latest(folder);
  return outcome;
}

}  // namespace retort
