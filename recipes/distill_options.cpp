#include "recipes/distill_options.h"

#include <algorithm>

namespace retort {

void from_yaml(const Yaml& node, TeacherList& list) {
  list.teachers.clear();
  if (node.is_map()) {
    list.teachers.push_back(from_yaml<TeacherOptions>(node));
    return;
  }
  for (const Yaml& item : node.items()) list.teachers.push_back(from_yaml<TeacherOptions>(item));
  if (list.teachers.empty()) node.refuse("at least one teacher is needed");
}

Json json_schema_of(TeacherList*) {
  const Json one = schema_of(static_cast<TeacherOptions*>(nullptr)).json_schema();
  return {{"anyOf", {one, {{"type", "array"}, {"items", one}, {"minItems", 1}}}}};
}

Json json_of(const TeacherList& list) {
  Json all = Json::array();
  for (const TeacherOptions& teacher : list.teachers) all.push_back(to_json(teacher));
  return all.size() == 1 ? all[0] : all;
}

const Schema<TeacherOptions>& schema_of(TeacherOptions*) {
  using O = TeacherOptions;
  static const auto schema = [] {
    std::vector<std::string> kinds = {"auto", "recorded"};
    for (const TeacherKind* kind : teacher_kinds()) kinds.emplace_back(kind->name);
    return Schema<O>("teacher", "Who teaches.")
        .field("kind", &O::kind,
               "auto: self without a path, else by what the path is; gguf: llama.cpp; huggingface: a model folder in "
               "LibTorch; self: the student's own base; recorded: a closed model's answers",
               {.one_of = kinds})
        .field("path", &O::path,
               "a source's name, a URI, a GGUF file, a Hugging Face folder, or JSON Lines of recorded answers")
        .field("adapter", &O::adapter, "gguf: a GGUF adapter; huggingface, self: a PEFT folder")
        .field("reference", &O::reference,
               "gguf: the same model in higher precision, against which the teacher's own error is measured")
        .field("weight", &O::weight, "of this teacher among several", {.minimum = 0, .minimum_open = true})
        .field("gpu_layers", &O::gpu_layers, "gguf: layers on the GPU", {.minimum = 0})
        .field("threads", &O::threads, "gguf: 0: one a core", {.minimum = 0, .maximum = 4096})
        .renamed("model", "path")
        .renamed("teacher_model", "path")
        .renamed("n_gpu_layers", "gpu_layers");
  }();
  return schema;
}

const Schema<CacheChoice>& schema_of(CacheChoice*) {
  using O = CacheChoice;
  static const auto schema =
      Schema<O>("cache", "What is kept of the teacher's distribution at each trained token.")
          .field("path", &O::path,
                 "a folder, with one for each teacher in it where there are several; default: in the per-user cache, "
                 "under the hash of what decides it")
          .field("top_k", &O::top_k, "at most so many tokens are kept one by one", {.minimum = 1, .maximum = 255})
          .field("min_probability", &O::min_probability, "of them, those that are at least so likely",
                 {.minimum = 0, .maximum = 1})
          .field("tail_clusters", &O::tail_clusters, "cells of the vocabulary whose masses are kept of the others",
                 {.minimum = 1, .maximum = 255})
          .field("tail_samples", &O::tail_samples,
                 "tokens drawn from the others at temperature 1, for estimator: sampled",
                 {.minimum = 0, .maximum = 255})
          .field("full", &O::full, "every token's log-probability, for estimator: full (small vocabularies)")
          .field("temperatures", &O::temperatures, "that a student may train at", {.minimum = 0.25, .maximum = 100})
          .field("seed", &O::seed, "of the cells and the draws", {.minimum = 0})
          .rule([](const O& o, const Yaml& node) {
            try {
              check_options(o);
            } catch (const Error& error) {
              node.refuse(error.what());
            }
          });
  return schema;
}

const Schema<OnPolicyChoice>& schema_of(OnPolicyChoice*) {
  using O = OnPolicyChoice;
  static const auto schema =
      Schema<O>("on_policy", "The student answers a share of the batches itself; the teacher scores what it said.")
          .field("lambda", &O::lambda, "share of the batches", {.minimum = 0, .maximum = 1, .minimum_open = true})
          .field("max_new_tokens", &O::max_new_tokens, "of an answer", {.minimum = 1})
          .field("temperature", &O::temperature, "that the student samples at; 0: greedy",
                 {.minimum = 0, .maximum = 10})
          .field("refresh", &O::refresh, "answers until llama.cpp gets the adapter as it is by then", {.minimum = 1});
  return schema;
}

const Schema<LayerPair>& schema_of(LayerPair*) {
  using O = LayerPair;
  static const auto schema =
      Schema<O>("layers", "A layer of the student and the one that it follows, both from 0.")
          .field("student", &O::student, "the student's layer", {.minimum = 0, .required = true})
          .field("teacher", &O::teacher, "the first teacher's layer", {.minimum = 0, .required = true});
  return schema;
}

const Schema<HiddenStatesChoice>& schema_of(HiddenStatesChoice*) {
  using O = HiddenStatesChoice;
  static const auto schema =
      Schema<O>("hidden_states", "What the student's layers give follows what the first teacher's layers give.")
          .field("layers", &O::layers, "pairs of layers", {.required = true})
          .field("distance", &O::distance, "cosine: 1 - cos; mse: mean square of the difference",
                 {.one_of = {"cosine", "mse"}})
          .field("project", &O::project,
                 "through a learned matrix also where both widths agree; where they do not, always")
          .field("weight", &O::weight, "of their mean, beside the loss", {.minimum = 0, .minimum_open = true})
          .rule([](const O& o, const Yaml& node) {
            if (o.layers.empty()) node["layers"].refuse("at least one pair of layers is needed");
          });
  return schema;
}

static std::vector<std::string> losses_and_spans() {
  std::vector<std::string> names = loss_names();
  names.emplace_back(loss_spans);
  return names;
}

const Schema<DistillOptions>& schema_of(DistillOptions*) {
  using O = DistillOptions;
  static const auto schema =
      Schema<O>("distill", "A teacher's logits instead of the answers alone.")
          .field("teacher", &O::teacher, "a mapping, or a list of them", {.required = true})
          .field("loss", &O::loss,
                 "how far the student is from the teacher; uld and spans compare across vocabularies: sorted "
                 "probabilities, "
                 "and the probabilities of stretches of text",
                 {.one_of = losses_and_spans()})
          .field("loss_args", &O::loss_args, "the loss's own number: beta of jsd, lambda of skew_kl, t_start of taid")
          .field("temperature", &O::temperature, "of teacher and student; the loss is multiplied by its square",
                 {.minimum = 0, .maximum = 100, .minimum_open = true})
          .field("kd_ratio", &O::kd_ratio, "weight of the loss; the rest is cross entropy",
                 {.minimum = 0, .maximum = 1})
          .field("estimator", &O::estimator,
                 "what a cached token's tail counts as: clustered (masses of cells), ghost (one mass), zero (nothing), "
                 "sampled (drawn tokens), full; auto: sampled for forward_kl at temperature 1, else clustered",
                 {.one_of = {"auto", "clustered", "ghost", "zero", "sampled", "full"}})
          .field("online", &O::online, "ask the teacher in every step instead of filling a cache")
          .field("cache", &O::cache, "what is kept")
          .field("on_policy", &O::on_policy, "GKD: answers of the student's own; needs online: true")
          .field("hidden_states", &O::hidden_states,
                 "layers that follow the first teacher's, which LibTorch runs besides, so it is of a family that is "
                 "trained here and has the student's tokens")
          .renamed("kd_alpha", "kd_ratio")
          .renamed("alpha", "kd_ratio")
          .renamed("kd_temperature", "temperature")
          .renamed("teacher_model_name_or_path", "teacher.path")
          .renamed("beta", "loss_args.beta")
          .rule([](const O& o, const Yaml& node) {
            if (o.hidden_states && o.teacher.teachers[0].path.empty())
              node["hidden_states"].refuse("the first teacher is the student's own base: there is nothing to follow");
            if (o.hidden_states && o.loss == loss_spans)
              node["hidden_states"].refuse("layers are compared token by token, loss: spans is for other vocabularies");
            if (o.on_policy && !o.online)
              node["on_policy"].refuse("no cache holds what the student will say: needs online: true");
            if (o.on_policy && o.kd_ratio == 0)
              node["on_policy"].refuse("the loss alone teaches answers of its own, and kd_ratio: 0 leaves it out");
            if (o.loss == loss_spans) {
              if (!o.loss_args.empty()) node["loss_args"].refuse("loss: spans has no number of its own");
              if (o.temperature != 1) node["temperature"].refuse("loss: spans compares probabilities at temperature 1");
              if (o.on_policy) node["on_policy"].refuse("loss: spans reads the recipe's own rows");
              return;
            }
            const LossKind& kind = loss_kind(o.loss);
            for (const auto& [name, value] : o.loss_args) {
              const Yaml at = node["loss_args"][name];
              if (!kind.parameter.name) at.refuse(fmt::format("loss: {} has no number of its own", o.loss));
              if (name != kind.parameter.name)
                at.refuse(fmt::format("loss: {}", not_among(name, {std::string(kind.parameter.name)})));
              if (value < kind.parameter.lowest || value > kind.parameter.highest)
                at.refuse(
                    fmt::format("found {}; allowed: {} to {}", value, kind.parameter.lowest, kind.parameter.highest));
            }
            if (o.online && node.has("cache")) node["cache"].refuse("online: true uses no cache");
            if (o.estimator == "zero" && kind.needs_support(divergence_options(o).parameter))
              node.refuse(
                  fmt::format("estimator: zero says that the teacher gives nothing to most tokens, and loss: {} has no "
                              "bound there; "
                              "use clustered or ghost",
                              o.loss));
            if (o.estimator == "sampled" && o.loss != "forward_kl")
              node.refuse("estimator: sampled is unbiased for loss: forward_kl alone");
            // loss: uld reads a cache only where the vocabularies agree, which shows when both are open.
            const std::string why = cannot_estimate(o.cache, o.temperature, estimator_of(o));
            if (!o.online && o.loss != "uld" && !why.empty()) node.refuse(why);
          });
  return schema;
}

Estimator estimator_of(const DistillOptions& options) {
  if (options.estimator != "auto") return estimator_named(options.estimator);
  // Draws are unbiased for this one divergence, and a student learns more from them than from cells.
  const bool unbiased = options.loss == "forward_kl" && options.temperature == 1 && options.cache.tail_samples > 0;
  return unbiased ? Estimator::sampled : Estimator::clustered;
}

DivergenceOptions divergence_options(const DistillOptions& options) {
  const LossKind& kind = loss_kind(options.loss);
  const auto given = options.loss_args.find(kind.parameter.name ? kind.parameter.name : "");
  return {.loss = &kind,
          .parameter = given == options.loss_args.end() ? kind.parameter.usual : given->second,
          .temperature = options.temperature,
          .kd_weight = options.kd_ratio,
          .ce_weight = 1 - options.kd_ratio};
}

}  // namespace retort
