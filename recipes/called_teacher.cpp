#include "recipes/called_teacher.h"

#include "core/error.h"

namespace retort {
namespace fs = std::filesystem;

CalledTeacher call_teacher(const Recipe& recipe, const Prepared& prepared, CausalLM& model, TeacherOptions options,
                           const ProgressSink& progress) {
  const DistillOptions& distill = *recipe.distill;
  CalledTeacher called{.name = options.path.empty() ? "the student's base" : options.path.string()};
  const auto local = [&](fs::path& path) {
    Progress shown(progress);
    if (!path.empty()) path = pull(source_of(recipe, path.string()), {.progress = &shown});
  };
  local(options.path);
  local(options.adapter);
  local(options.reference);
  called.options = options;
  const int64_t width = model.config().vocab;
  if (!teacher_kind(options)) {
    if (!options.reference.empty())
      fail(Exit::usage, "distill.teacher: {}: recorded answers have no reference to be compared with", called.name);
    if (distill.temperature != 1 || distill.loss == loss_spans || distill.loss == "uld" || distill.on_policy)
      fail(Exit::usage,
           "distill.teacher: {}: a service's log-probabilities are those of its tokens at temperature 1; allowed with "
           "them: losses that compare token with token, at temperature: 1, without on_policy",
           called.name);
    called.recorded =
        open_recorded(options.path, *prepared.tokenizer, *prepared.chat_template, encode_options(recipe), width);
    called.identity = called.recorded->identity;
    const RecordedCounts& counts = called.recorded->counts;
    called.vocabulary = fmt::format("recorded answers: {}; {} of {} trained tokens have log-probabilities",
                                    counts.answers, counts.aligned_tokens, counts.trained_tokens);
    return called;
  }
  const TeacherPlace place{.student = &model,
                           .checkpoint = prepared.checkpoint.get(),
                           .tokenizer = prepared.tokenizer.get(),
                           .load = load_options(recipe)};
  called.teacher = open_teacher(options, place);
  called.identity = called.teacher.model->identity();
  VocabularyMap map = compare_vocabularies(*prepared.tokenizer, *called.teacher.tokenizer);
  called.vocabulary = map.summary();
  called.same_tokens = map.match == VocabularyMatch::equal;
  if (!options.reference.empty() && !called.same_tokens)
    fail(Exit::usage,
         "distill.teacher: {}: reference: both are asked about the student's tokens, and they are not its own: {}",
         called.name, called.vocabulary);
  called.by_text = distill.loss == loss_spans || (distill.loss == "uld" && map.match == VocabularyMatch::different);
  if (called.by_text && distill.on_policy)
    fail(
        Exit::usage,
        "distill.on_policy: {}: loss: {} reads the recipe's own rows in both models' tokens, and what the student says "
        "is not among them; leave on_policy out, or name a teacher with the student's tokens: {}",
        called.name, distill.loss, called.vocabulary);
  if (called.by_text) return called;
  require_shared_tokens(map, recipe.model.path, called.name);
  if (map.match != VocabularyMatch::equal || called.teacher.model->vocab() != width) {
    auto mapped = map_vocabulary(std::move(called.teacher.model), std::move(map), width);
    called.mapped = mapped.get();
    called.teacher.model = std::move(mapped);
  }
  return called;
}

}  // namespace retort
