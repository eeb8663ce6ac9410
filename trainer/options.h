// The recipe's `train:` block. Names are Hugging Face's where it has one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/schema.h"

namespace retort {

/// Options that some optimizers have (Hugging Face's optim_args); nothing: the optimizer's own default.
struct OptimArgs {
  std::optional<double> momentum;
  std::optional<double> dampening;
  std::optional<bool> nesterov;
  std::optional<int64_t> ns_steps;
  std::optional<std::string> adjust_lr_fn;
  std::optional<double> decay_rate;
  std::optional<double> clip_threshold;
  std::optional<bool> scale_parameter;
};

/// "8GiB", "500 MB" or a number of bytes.
struct ByteSize {
  int64_t bytes = 0;
};
void from_yaml(const Yaml& node, ByteSize& size);
Json json_schema_of(ByteSize*);
Json json_of(const ByteSize& size);

/// What a run has to fit into (trainer/fit.h).
struct FitOptions {
  ByteSize memory;
};

struct TrainOptions {
  double num_train_epochs = 1;
  std::optional<int64_t> max_steps;
  int64_t micro_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;

  double learning_rate = 2e-4;
  std::string lr_scheduler_type = "cosine";
  double warmup_ratio = 0;
  std::optional<int64_t> warmup_steps;
  double min_lr_ratio = 0;
  double decay_ratio = 0.1;

  std::string optimizer = "adamw";
  double weight_decay = 0;
  std::optional<double> adam_beta1;  ///< nothing: the optimizer's own default, as for the next two
  std::optional<double> adam_beta2;
  std::optional<double> adam_epsilon;
  OptimArgs optim_args;
  std::optional<double> loraplus_lr_ratio;
  double loraplus_lr_embedding = 1e-6;
  double max_grad_norm = 1;

  bool gradient_checkpointing = false;
  int64_t gradient_checkpointing_every = 1;
  bool activation_offloading = false;
  std::optional<FitOptions> fit;
  int64_t logging_steps = 1;
  std::optional<int64_t> eval_steps;
  std::optional<int64_t> save_steps;
  std::optional<int64_t> save_total_limit = 2;
  std::optional<int64_t> early_stopping_patience;
  double early_stopping_threshold = 0;
  bool load_best_model_at_end = false;

  int64_t windows_per_step() const { return micro_batch_size * gradient_accumulation_steps; }
};

const Schema<OptimArgs>& schema_of(OptimArgs*);
const Schema<FitOptions>& schema_of(FitOptions*);
const Schema<TrainOptions>& schema_of(TrainOptions*);

/// Error(usage) when a key needs validation data and the recipe has none.
void check_validation(const TrainOptions& options, bool has_validation);

}  // namespace retort
