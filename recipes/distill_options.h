// The recipe's `distill:` block: who teaches, and what the student learns from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/schema.h"
#include "distill/logit_cache.h"
#include "distill/teacher.h"
#include "trainer/divergence.h"
#include "trainer/hidden_states.h"
#include "trainer/on_policy.h"

namespace retort {

/// A mapping, or a list of them.
struct TeacherList {
  std::vector<TeacherOptions> teachers;
};
void from_yaml(const Yaml& node, TeacherList& list);
Json json_schema_of(TeacherList*);
Json json_of(const TeacherList& list);
const Schema<TeacherOptions>& schema_of(TeacherOptions*);

/// What `retort cache-teacher` keeps of each trained token, and where.
struct CacheChoice : CacheOptions {
  std::filesystem::path path;  ///< a folder; empty: in the per-user cache, under the hash of what decides its
                               ///< content; several teachers have a folder each in it
};
const Schema<CacheChoice>& schema_of(CacheChoice*);

/// GKD: the student answers a share of the batches itself, and the teacher scores what it said.
struct OnPolicyChoice : OnPolicyOptions {
  double temperature = 1;
  int64_t refresh = 64;  ///< answers until the sampled student is the trained one again
};
const Schema<OnPolicyChoice>& schema_of(OnPolicyChoice*);

/// Layers of the student that follow layers of the first teacher.
struct HiddenStatesChoice {
  std::vector<LayerPair> layers;
  std::string distance = "cosine";
  bool project = false;
  double weight = 0.1;
};
const Schema<LayerPair>& schema_of(LayerPair*);
const Schema<HiddenStatesChoice>& schema_of(HiddenStatesChoice*);

/// The loss that is no LossKind: it compares stretches of text (trainer/cross_vocabulary.h).
inline constexpr const char* loss_spans = "spans";

struct DistillOptions {
  TeacherList teacher;
  std::string loss = "forward_kl";
  std::map<std::string, double> loss_args;  ///< the loss's own number: beta, lambda, t_start
  double temperature = 1;
  double kd_ratio = 0.5;
  std::string estimator = "auto";
  bool online = false;
  CacheChoice cache;
  std::optional<OnPolicyChoice> on_policy;
  std::optional<HiddenStatesChoice> hidden_states;
};
const Schema<DistillOptions>& schema_of(DistillOptions*);

/// What `estimator` means for a run from the cache, `auto` resolved.
Estimator estimator_of(const DistillOptions& options);
/// As linear_divergence takes them; not of loss: spans.
DivergenceOptions divergence_options(const DistillOptions& options);

}  // namespace retort
