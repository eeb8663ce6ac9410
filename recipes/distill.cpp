#include "recipes/distill.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>

#include "adapters/attach.h"
#include "core/files.h"
#include "core/temporary_folder.h"
#include "distill/cache_folder.h"
#include "distill/online.h"
#include "distill/teacher_error.h"
#include "export/gguf.h"
#include "recipes/called_teacher.h"
#include "recipes/stages.h"
#include "trainer/cross_vocabulary.h"
#include "trainer/hidden_states.h"
#include "trainer/on_policy.h"
#include "trainer/train.h"

namespace retort {
namespace fs = std::filesystem;

namespace {

/// KL(reference ‖ teacher) on the first held-out rows.
Json own_error(const CalledTeacher& called, const PackedDataset& data) {
  constexpr int64_t most_tokens = 2048;
  TeacherOptions options = called.options;  // its adapter and its place too
  options.path = options.reference;
  if (const TeacherKind* kind = teacher_kind(options); kind && !kind->reads_llama_options)
    options.gpu_layers = options.threads = 0;
  const OpenedTeacher reference = open_teacher(options);
  std::vector<std::vector<int32_t>> documents;
  int64_t tokens = 0;
  for (int64_t w = 0; w < data.windows() && tokens < most_tokens; ++w) {
    const Batch batch = data.batch({&w, 1});
    const auto* ids = batch.ids.const_data_ptr<int64_t>();
    for (size_t d = 0; d + 1 < batch.offsets.size(); ++d)
      documents.emplace_back(ids + batch.offsets[d], ids + batch.offsets[d + 1]);
    tokens += batch.tokens();
  }
  Teacher& teacher = called.mapped ? called.mapped->unmapped() : *called.teacher.model;  // the ids are the same
  return teacher_error(teacher, *reference.model, documents).to_json();
}

CacheSubject subject_of(const CalledTeacher& called, const Prepared& prepared, const CausalLM& model) {
  return {.teacher = called.identity,
          .tokenizer_hash = prepared.tokenizer->hash(),
          .template_hash = prepared.chat_template->hash(),
          .vocab = model.config().vocab};
}

fs::path folder_of(const DistillOptions& distill, const CacheSubject& subject) {
  const std::string key = CacheHeader{.subject = subject, .options = distill.cache, .cells_hash = {}}.key();
  if (distill.cache.path.empty()) return cache_folder() / "teachers" / key;
  return distill.teacher.teachers.size() > 1 ? distill.cache.path / key : distill.cache.path;
}

/// Before a cache is filled for what it cannot give; the recipe's own rule leaves loss: uld to this one.
void expect_estimable(const DistillOptions& distill) {
  if (const std::string why = cannot_estimate(distill.cache, distill.temperature, estimator_of(distill)); !why.empty())
    fail(Exit::usage, "distill: {}", why);
}

/// A cache of this recipe's share of rows.
struct Filled {
  CacheSubject subject;
  fs::path folder;
  CaptureReport report;
};

/// Asks the teacher about every training row that its cache lacks: of held-out ones nothing is read from a cache.
Filled fill(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const CalledTeacher& called,
            CacheShare share, const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  expect_estimable(distill);
  const CacheSubject subject = subject_of(called, prepared, model);
  const fs::path folder = folder_of(distill, subject);
  std::optional<Cells> cells = cells_of_cache(folder);
  if (!cells)
    cells = cluster_cells(model.linears().back()->weight(), prepared.tokenizer->size(), distill.cache.tail_clusters,
                          distill.cache.seed);
  return {subject, folder,
          capture(*called.teacher.model, *prepared.train, *cells, subject, distill.cache, folder, share,
                  Progress(progress))};
}

Json json_of(const CalledTeacher& called, const Filled& filled) {
  const CaptureReport& done = filled.report;
  return {{"teacher", called.name},      {"folder", filled.folder.string()},
          {"documents", done.documents}, {"positions", done.positions},
          {"bytes", done.bytes},         {"teacher_tokens", done.teacher_tokens},
          {"seconds", done.seconds},     {"teacher_seconds", done.teacher_seconds}};
}

/// What one teacher adds to the objective, and to its entry in the report. `own` gets what it adds where the student
/// answers itself: the divergence alone, for a sampled token is no answer to learn.
std::vector<ObjectivePart> parts_of(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                                    const std::shared_ptr<CalledTeacher>& called, double weight,
                                    const std::string& number, Distillation& result, Json& entry,
                                    std::vector<ObjectivePart>& own, const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  const double kd = weight * distill.kd_ratio, ce = weight * (1 - distill.kd_ratio);
  if (called->by_text) {
    const auto both = std::make_shared<BothTexts>(recipe, prepared, *called, prepared.train_rows());
    entry["aligned"] = {{"tokens", both->texts.aligned_tokens()}, {"of", both->texts.trained_tokens()}};
    result.kept.push_back(both);
    Teacher& teacher = *called->teacher.model;
    ObjectivePart part = distill.loss == loss_spans
                             ? spans_part(span_targets(teacher, both->texts), kd, result.state, number)
                             : uld_part(ranked_targets(teacher, both->texts, model.config().vocab, distill.temperature),
                                        kd, distill.temperature, result.state, number);
    return {cross_entropy_part(ce), std::move(part)};
  }
  TargetSource source;
  if (called->recorded) {
    source = called->recorded->targets;
  } else if (distill.online) {
    source = online_targets(*called->teacher.model);
  } else {
    const Filled filled = fill(recipe, prepared, model, *called, {}, progress);
    entry["capture"] = json_of(*called, filled);
    const auto cache = LogitCache::open(filled.folder, filled.subject, filled.report.sound);
    cache->expect_all(*prepared.train);
    source = cached_targets(cache, distill.temperature, estimator_of(distill));
    entry["cache"] = describe_cache(filled.folder, false);
  }
  DivergenceOptions loss = divergence_options(distill);
  loss.kd_weight = kd;
  loss.ce_weight = 0;
  if (distill.on_policy) own.push_back(divergence_part(source, loss, result.state, number));
  loss.ce_weight = ce;
  return {divergence_part(std::move(source), loss, result.state, number)};
}

/// The teacher in LibTorch, whose states the student follows: the open one where it runs there.
std::shared_ptr<CausalLM> teacher_of_layers(const Recipe& recipe, const CalledTeacher& called) {
  if (!called.same_tokens)
    fail(Exit::usage, "distill.hidden_states: {} reads other tokens than the student: {}", called.name,
         called.vocabulary);
  if (auto model = called.teacher.model->torch()) return model;
  const TeacherOptions& options = called.options;
  if (!options.adapter.empty())
    fail(Exit::usage,
         "distill.hidden_states: {}: LibTorch runs the layers that are followed, and it does not read {}, a GGUF "
         "adapter; use kind: huggingface with a PEFT folder, or a teacher with the adapter merged in",
         called.name, options.adapter.string());
  return CausalLM::load(*Checkpoint::open(options.path), load_options(recipe));
}

/// `blocks` become those of the student whose states are read.
ObjectivePart follow_layers(const Recipe& recipe, CausalLM& student, const std::shared_ptr<CausalLM>& teacher,
                            std::shared_ptr<ObjectiveState> state, std::vector<int64_t>& blocks) {
  const HiddenStatesChoice& choice = *recipe.distill->hidden_states;
  const HiddenStateOptions hidden{
      .layers = choice.layers,
      .distance = choice.distance == "mse" ? HiddenStateOptions::Distance::mse : HiddenStateOptions::Distance::cosine,
      .project = choice.project,
      .weight = choice.weight,
      .seed = static_cast<uint64_t>(recipe.seed)};
  blocks = student_blocks(hidden);
  return hidden_states_part(states_of(teacher, choice.layers), hidden, student, teacher->config(), std::move(state));
}

/// What llama.cpp has to be able to serve, before anything is asked.
void check_on_policy(const Recipe& recipe, const Prepared& prepared, CausalLM& model) {
  if (recipe.distill->on_policy) {
    if (!base_form(recipe).empty())
      fail(Exit::usage,
           "distill.on_policy: llama.cpp answers for the student and does not have its base in {}; use "
           "model.base: native",
           recipe.model.base);
    check_gguf_adapter(prepared.checkpoint->config(), recipe.adapter, plan_adapters(model, recipe.adapter).targets);
  }
}

/// The first micro-batch's question, and what is in memory as long as its answer is read.
std::shared_ptr<TeacherTargets> ask_as_a_step_does(const Recipe& recipe, const Prepared& prepared,
                                                   const CalledTeacher& called) {
  std::vector<int64_t> windows(static_cast<size_t>(std::min(recipe.train.micro_batch_size, prepared.train->windows())));
  std::iota(windows.begin(), windows.end(), 0);
  Batch batch = prepared.train->batch(windows);
  if (called.by_text) {  // the same text in the teacher's tokens, all of it
    const std::vector<int64_t> offsets = std::exchange(batch.offsets, {0});
    const auto* id = batch.ids.const_data_ptr<int64_t>();
    std::vector<int64_t> ids;
    for (size_t d = 0; d + 1 < offsets.size(); ++d) {
      const std::vector<int32_t> document(id + offsets[d], id + offsets[d + 1]);
      for (const int32_t token : called.teacher.tokenizer->encode(prepared.tokenizer->decode(document), false, true))
        ids.push_back(token);
      batch.offsets.push_back(static_cast<int64_t>(ids.size()));
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.labels = at::zeros_like(batch.ids);
  }
  const auto targets = std::make_shared<TeacherTargets>(online_targets(*called.teacher.model)(batch, windows));
  if (targets->rows > 0) targets->dense(0, std::min(targets->rows, default_chunk));
  return targets;
}

Json spans_apart(CausalLM& model, const PackedDataset& data, const SpanSource& source, int64_t windows_per_batch) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  int64_t spans = 0;
  for (int64_t begin = 0; begin < data.windows(); begin += windows_per_batch) {
    std::vector<int64_t> windows(static_cast<size_t>(std::min(windows_per_batch, data.windows() - begin)));
    std::iota(windows.begin(), windows.end(), begin);
    Batch batch = data.batch(windows);
    batch.ids = batch.ids.to(model.device());
    const SpanTargets targets = source(batch);
    sum += linear_span_divergence(*model.linears().back(), model.hidden(batch), batch.labels, targets).item<double>();
    spans += static_cast<int64_t>(targets.offsets.size()) - 1;
  }
  return {{"spans", spans},
          {"divergence", spans > 0 ? Json(sum / static_cast<double>(spans)) : Json()},
          {"cross_entropy", validate(model, data, windows_per_batch).loss}};
}

}  // namespace

Continue student_answers(std::shared_ptr<const ServableFile> base, CausalLM& model, const OnPolicyChoice& choice,
                         int threads, std::shared_ptr<ObjectiveState> state) {
  return served_continuations(
      model,
      [base = std::move(base), &model, threads] {
        const TemporaryFolder folder;  // llama.cpp reads the whole adapter when it opens it
        export_gguf_adapter(folder / "adapter.gguf", model, {});
        return ServedModel::open(base->path(), {.threads = threads, .adapter = folder / "adapter.gguf"});
      },
      choice.temperature, choice.refresh, std::move(state));
}

Distillation open_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                               const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  check_on_policy(recipe, prepared, model);
  Distillation result;
  result.state = std::make_shared<ObjectiveState>();
  result.report = {{"loss", distill.loss},
                   {"temperature", distill.temperature},
                   {"kd_ratio", distill.kd_ratio},
                   {"estimator", distill.online ? "online" : name_of(estimator_of(distill))},
                   {"teachers", Json::array()}};
  double weights = 0;
  for (const TeacherOptions& options : distill.teacher.teachers) weights += options.weight;
  std::vector<ObjectivePart> parts, own;
  // Cross entropy alone, to compare with: no teacher has to be asked about the rows that are trained on.
  if (distill.kd_ratio == 0) parts.push_back(cross_entropy_part(1));
  for (const TeacherOptions& options : distill.teacher.teachers) {
    const auto called = std::make_shared<CalledTeacher>(call_teacher(recipe, prepared, model, options, progress));
    const TeacherIdentity identity = called->identity;
    const size_t index = result.report["teachers"].size();
    Json entry = {{"path", called->name},
                  {"weight", options.weight},
                  {"vocabulary", called->vocabulary},
                  {"engine", identity.engine},
                  {"quantization", identity.quantization},
                  {"sha256", identity.hash}};
    if (!options.reference.empty())
      entry["error"] = own_error(*called, prepared.validation ? *prepared.validation : *prepared.train);
    const std::string number = distill.teacher.teachers.size() > 1 ? fmt::format("teacher{}", index + 1) : "";
    if (distill.kd_ratio > 0)
      for (ObjectivePart& part :
           parts_of(recipe, prepared, model, called, options.weight / weights, number, result, entry, own, progress))
        parts.push_back(std::move(part));
    result.identity[fmt::format("distill.teacher.{}", index)] = identity.hash;
    result.identity[fmt::format("distill.teacher.{}.weight", index)] = options.weight;
    result.report["teachers"].push_back(std::move(entry));
    result.teachers.push_back(called);
  }
  Json all = to_json(distill);
  all["cache"].erase("path");
  for (const char* key :
       {"loss", "loss_args", "temperature", "kd_ratio", "estimator", "online", "cache", "on_policy", "hidden_states"})
    result.identity[fmt::format("distill.{}", key)] = all[key].is_structured() ? Json(all[key].dump()) : all[key];
  std::vector<int64_t> blocks;
  if (distill.hidden_states) {
    parts.push_back(follow_layers(recipe, model, teacher_of_layers(recipe, *result.teachers[0]), result.state, blocks));
    own.push_back(parts.back());
    result.report["hidden_states"] = all["hidden_states"];
  }
  result.objective = sum_of(std::move(parts), blocks);
  if (distill.on_policy) {
    result.report["on_policy"] = all["on_policy"];
    OnPolicyOptions options = *distill.on_policy;
    options.seed = static_cast<uint64_t>(recipe.seed);
    const auto base = std::make_shared<const ServableFile>(prepared.model_path);
    result.objective = on_policy_objective(
        result.objective, sum_of(std::move(own), blocks),
        student_answers(base, model, *distill.on_policy, static_cast<int>(recipe.threads), result.state), options,
        result.state);
  }
  return result;
}

CheckedTeachers check_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                                   const ProgressSink& progress) {
  check_on_policy(recipe, prepared, model);
  CheckedTeachers checked{.json = Json::array(), .held = {}};
  for (const TeacherOptions& options : recipe.distill->teacher.teachers) {
    const auto called = std::make_shared<CalledTeacher>(call_teacher(recipe, prepared, model, options, progress));
    const bool asked = !called->recorded && (recipe.distill->online || called->by_text);
    const bool cached = !called->recorded && !asked;
    if (cached) expect_estimable(*recipe.distill);
    if (asked) {
      checked.held.push_back(called);
      checked.held.push_back(ask_as_a_step_does(recipe, prepared, *called));
    }
    if (recipe.distill->hidden_states && checked.json.empty())
      checked.held.push_back(teacher_of_layers(recipe, *called));
    checked.json.push_back(
        {{"teacher", called->name},
         {"engine", called->identity.engine},
         {"quantization", called->identity.quantization},
         {"vocabulary", called->vocabulary},
         {"cache", cached ? Json(folder_of(*recipe.distill, subject_of(*called, prepared, model)).string()) : Json()}});
  }
  return checked;
}

void close_cached_teachers(const Recipe& recipe, Distillation& distillation) {
  for (const auto& called : distillation.teachers)
    if (!recipe.distill->online && !called->by_text) called->teacher.model.reset();
}

void evaluate_teachers(const Recipe& recipe, const Prepared& prepared, const Distillation& distillation,
                       const std::vector<EvaluationRow>& rows, Json& report, const ProgressSink& progress) {
  for (size_t i = 0; i < distillation.teachers.size(); ++i) {
    const CalledTeacher& called = *distillation.teachers[i];
    ServedModel* const served = called.teacher.model ? called.teacher.model->served() : nullptr;
    if (!called.same_tokens || !served) continue;
    evaluate_served(recipe, prepared, rows, *served,
                    distillation.teachers.size() > 1 ? fmt::format("teacher {}", i + 1) : "teacher", report, progress);
  }
}

Json fill_caches(const Recipe& recipe, const Prepared& prepared, CausalLM& model, CacheShare share,
                 const ProgressSink& progress) {
  if (!recipe.distill) fail(Exit::usage, "{}: has no distill: block, so there is no teacher", recipe.file.string());
  if (recipe.distill->online)
    fail(Exit::usage, "{}: distill.online: true asks the teacher in every step and keeps nothing",
         recipe.file.string());
  Json all = Json::array();
  for (const TeacherOptions& options : recipe.distill->teacher.teachers) {
    const CalledTeacher called = call_teacher(recipe, prepared, model, options, progress);
    if (called.recorded || called.by_text)
      fail(Exit::usage, "{}: nothing of it is cached: {}", called.name,
           called.recorded ? "the answers are recorded already" : "it is asked once while the student trains");
    all.push_back(json_of(called, fill(recipe, prepared, model, called, share, progress)));
  }
  return all;
}

Json against_teachers(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const Distillation& distillation,
                      const ProgressSink& progress) {
  if (!prepared.validation) return {};
  Json all = Json::array();
  for (size_t i = 0; i < distillation.teachers.size(); ++i) {
    std::optional<CalledTeacher> again;  // for the time of this measurement
    if (!distillation.teachers[i]->is_open())
      again = call_teacher(recipe, prepared, model, recipe.distill->teacher.teachers[i], progress);
    const CalledTeacher& called = again ? *again : *distillation.teachers[i];
    const int64_t windows = recipe.train.micro_batch_size;
    if (called.recorded) {
      all.push_back(nullptr);
    } else if (called.by_text) {
      BothTexts both(recipe, prepared, called, chats_of(prepared.validation_files));
      all.push_back(spans_apart(model, *prepared.validation, span_targets(*called.teacher.model, both.texts), windows));
    } else {
      if (called.mapped) called.mapped->forget_lost_mass();  // of what it was asked before
      Json measured =
          measure_divergence(model, *prepared.validation, online_targets(*called.teacher.model), {}, windows).to_json();
      if (called.mapped) measured["lost_mass"] = called.mapped->lost_mass();
      all.push_back(std::move(measured));
    }
  }
  return all;
}

}  // namespace retort
