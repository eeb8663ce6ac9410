#include "recipes/distill.h"

#include "core/files.h"
#include "core/hash.h"
#include "core/log.h"
#include "distill/online.h"
#include "distill/vocabulary_map.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// A teacher of the recipe, opened.
struct Called {
  TeacherOptions options;  ///< with local paths
  OpenedTeacher teacher;   ///< speaks the student's tokens
  std::string name;        ///< as the recipe calls it
  std::string vocabulary;  ///< how it compares with the student's
};

Called call(const Recipe& recipe, const Prepared& prepared, CausalLM& model, TeacherOptions options,
            const ProgressSink& progress) {
  const std::string name = options.path.empty() ? "the student's base" : options.path.string();
  const auto local = [&](fs::path& path) {
    Progress shown(progress);
    if (!path.empty()) path = pull(source_of(recipe, path.string()), {.progress = &shown});
  };
  local(options.path);
  local(options.adapter);
  local(options.reference);
  const TeacherPlace place{.student = &model,
                           .checkpoint = prepared.checkpoint.get(),
                           .tokenizer = prepared.tokenizer.get(),
                           .load = load_options(recipe)};
  OpenedTeacher opened = open_teacher(options, place);
  VocabularyMap map = compare_vocabularies(*prepared.tokenizer, *opened.tokenizer);
  require_shared_tokens(map, recipe.model.path, name);
  const std::string vocabulary = map.summary();
  const int64_t width = model.config().vocab;
  if (map.match != VocabularyMatch::equal || opened.model->vocab() != width)
    opened.model = map_vocabulary(std::move(opened.model), std::move(map), width);
  return {options, std::move(opened), name, vocabulary};
}

CacheSubject subject_of(const Called& called, const Prepared& prepared, const CausalLM& model) {
  return {.teacher = called.teacher.model->identity(),
          .tokenizer_hash = prepared.tokenizer->hash(),
          .template_hash = prepared.chat_template->hash(),
          .vocab = model.config().vocab};
}

fs::path folder_of(const DistillOptions& distill, const CacheSubject& subject) {
  if (!distill.cache.path.empty()) return distill.cache.path;
  Json key = to_json(distill.cache);
  key.erase("path");
  const std::string text = key.dump() + subject.teacher.hash + subject.tokenizer_hash + subject.template_hash;
  return cache_folder() / "teachers" / sha256_hex(text).substr(0, 16);
}

/// Asks the teacher about every row that its cache lacks.
Json fill(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const Called& called, CacheShare share,
          const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  const CacheSubject subject = subject_of(called, prepared, model);
  const fs::path folder = folder_of(distill, subject);
  std::optional<Cells> cells = cells_of_cache(folder);
  if (!cells)
    cells = cluster_cells(model.linears().back()->weight(), prepared.tokenizer->size(), distill.cache.tail_clusters,
                          distill.cache.seed);
  int64_t tokens = 0, documents = 0, positions = 0;
  uint64_t bytes = 0;
  double seconds = 0, asking = 0;
  for (const PackedDataset* data : {prepared.train.get(), prepared.validation.get()}) {
    if (!data) continue;
    const CaptureReport done =
        capture(*called.teacher.model, *data, *cells, subject, distill.cache, folder, share, Progress(progress));
    documents += done.documents, positions += done.positions, bytes += done.bytes, tokens += done.teacher_tokens;
    seconds += done.seconds, asking += done.teacher_seconds;
  }
  return {{"teacher", called.name}, {"folder", folder.string()}, {"documents", documents}, {"positions", positions},
          {"bytes", bytes},         {"teacher_tokens", tokens},  {"seconds", seconds},     {"teacher_seconds", asking}};
}

}  // namespace

Distillation open_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model,
                               const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  Distillation result;
  result.state = std::make_shared<ObjectiveState>();
  result.report = {{"loss", distill.loss},
                   {"temperature", distill.temperature},
                   {"kd_ratio", distill.kd_ratio},
                   {"estimator", distill.online ? "online" : distill.estimator},
                   {"teachers", Json::array()}};
  double weights = 0;
  for (const TeacherOptions& options : distill.teacher.teachers) weights += options.weight;
  std::vector<ObjectivePart> parts;
  for (const TeacherOptions& options : distill.teacher.teachers) {
    Called called = call(recipe, prepared, model, options, progress);
    const TeacherIdentity identity = called.teacher.model->identity();
    Json entry = {{"path", called.name},
                  {"weight", options.weight},
                  {"vocabulary", called.vocabulary},
                  {"engine", identity.engine},
                  {"quantization", identity.quantization},
                  {"sha256", identity.hash}};
    TargetSource source;
    if (distill.online) {
      source = online_targets(*called.teacher.model);
    } else {
      entry["capture"] = fill(recipe, prepared, model, called, {}, progress);
      const CacheSubject subject = subject_of(called, prepared, model);
      const fs::path folder = folder_of(distill, subject);
      const auto cache = LogitCache::open(folder, subject);
      cache->expect_all(*prepared.train);
      source = cached_targets(cache, distill.temperature, estimator_named(distill.estimator));
      entry["cache"] = describe_cache(folder);
    }
    DivergenceOptions loss = divergence_options(distill);
    loss.kd_weight *= options.weight / weights;
    loss.ce_weight *= options.weight / weights;
    const std::string number = distill.teacher.teachers.size() > 1 ? fmt::format("teacher{}", parts.size() + 1) : "";
    parts.push_back(divergence_part(std::move(source), loss, result.state, number));
    result.identity[fmt::format("distill.teacher.{}", result.report["teachers"].size())] = identity.hash;
    result.report["teachers"].push_back(std::move(entry));
    if (distill.online) result.teachers.push_back(std::move(called.teacher));
  }
  const Json all = to_json(distill);
  for (const char* key : {"loss", "loss_args", "temperature", "kd_ratio", "estimator", "online"})
    result.identity[fmt::format("distill.{}", key)] = all[key].is_object() ? Json(all[key].dump()) : all[key];
  result.objective = sum_of(std::move(parts));
  return result;
}

Json check_distillation(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const ProgressSink& progress) {
  Json all = Json::array();
  for (const TeacherOptions& options : recipe.distill->teacher.teachers) {
    const Called called = call(recipe, prepared, model, options, progress);
    const TeacherIdentity& identity = called.teacher.model->identity();
    const fs::path folder = folder_of(*recipe.distill, subject_of(called, prepared, model));
    all.push_back({{"teacher", called.name},
                   {"engine", identity.engine},
                   {"quantization", identity.quantization},
                   {"vocabulary", called.vocabulary},
                   {"cache", recipe.distill->online ? Json() : Json(folder.string())}});
  }
  return all;
}

Json fill_caches(const Recipe& recipe, const Prepared& prepared, CausalLM& model, CacheShare share,
                 const ProgressSink& progress) {
  if (!recipe.distill) fail(Exit::usage, "{}: has no distill: block, so there is no teacher", recipe.file.string());
  if (recipe.distill->online)
    fail(Exit::usage, "{}: distill.online: true asks the teacher in every step and keeps nothing",
         recipe.file.string());
  Json all = Json::array();
  for (const TeacherOptions& options : recipe.distill->teacher.teachers) {
    const Called called = call(recipe, prepared, model, options, progress);
    all.push_back(fill(recipe, prepared, model, called, share, progress));
  }
  return all;
}

Json against_teachers(const Recipe& recipe, const Prepared& prepared, CausalLM& model, const ProgressSink& progress) {
  if (!prepared.validation) return {};
  Json all = Json::array();
  for (const TeacherOptions& options : recipe.distill->teacher.teachers) {
    const Called called = call(recipe, prepared, model, options, progress);
    const DivergenceSums sums = measure_divergence(model, *prepared.validation, online_targets(*called.teacher.model),
                                                   {}, recipe.train.micro_batch_size);
    all.push_back(sums.to_json());
  }
  return all;
}

}  // namespace retort
