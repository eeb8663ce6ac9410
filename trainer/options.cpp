#include "trainer/options.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "core/error.h"
#include "trainer/optimizer.h"

namespace retort {
namespace {

/// "momentum (muon, sgd)": who reads a key that not every optimizer reads.
std::string readers(const std::string& key) {
  std::vector<std::string> names;
  for (const OptimizerKind* kind : optimizer_kinds())
    if (std::ranges::count(kind->options, key)) names.emplace_back(kind->name);
  return fmt::format("{}", fmt::join(names, ", "));
}

/// Refuses what the chosen optimizer would not read.
void check_optimizer(const TrainOptions& o, const Yaml& node) {
  const OptimizerKind& kind = optimizer_kind(o.optimizer);
  const auto check = [&](const Json& values, const Yaml& where) {
    for (const auto& [key, value] : values.items())
      if (!value.is_null() && !std::ranges::count(kind.options, key))
        where[key].refuse(fmt::format("optimizer: {} does not read it; those that do: {}", o.optimizer, readers(key)));
  };
  const Json all = to_json(o);
  Json adam = Json::object();
  for (const char* key : {"adam_beta1", "adam_beta2", "adam_epsilon"}) adam[key] = all[key];
  check(adam, node);
  const OptimArgs& args = o.optim_args;
  check(all["optim_args"], node.has("optim_args") ? node["optim_args"] : node);
  if (std::string(kind.name) == "sgd" && args.nesterov.value_or(false) &&
      (args.momentum.value_or(0) == 0 || args.dampening.value_or(0) > 0))
    node["optim_args"]["nesterov"].refuse("needs a momentum above 0 and no dampening");
}

}  // namespace

void from_yaml(const Yaml& node, ByteSize& size) {
  static const std::map<std::string, double> units{{"", 1},         {"B", 1},       {"kB", 1e3},     {"MB", 1e6},
                                                   {"GB", 1e9},     {"TB", 1e12},   {"KiB", 0x1p10}, {"MiB", 0x1p20},
                                                   {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  const std::string text = node.is_scalar() ? node.as_string() : "";
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  const auto factor = units.find(unit);
  if (error != std::errc() || factor == units.end() || !(number > 0) || number * factor->second > 0x1p60)
    node.refuse(fmt::format("found {}; give a size such as 8GiB, 500MB or a number of bytes", node.shown()));
  size.bytes = static_cast<int64_t>(number * factor->second);
}

Json json_schema_of(ByteSize*) {
  return {{"oneOf", {{{"type", "string"}, {"pattern", "^[0-9.]+ *([kMGT]B|[KMGT]iB|B)?$"}}, {{"type", "integer"}}}}};
}

Json json_of(const ByteSize& size) { return size.bytes; }

const Schema<FitOptions>& schema_of(FitOptions*) {
  static const auto schema =
      Schema<FitOptions>(
          "train.fit",
          "Lets the run choose gradient checkpointing, micro_batch_size and gradient_accumulation_steps. "
          "Their product, the rows of an update, stays.")
          .field("memory", &FitOptions::memory,
                 "what the run may take at its peak, as `8GiB`: of the process on a CPU, of the device on a GPU",
                 {.required = true});
  return schema;
}

const Schema<OptimArgs>& schema_of(OptimArgs*) {
  using O = OptimArgs;
  static const auto schema =
      Schema<O>("train.optim_args", "Options of single optimizers; null: the optimizer's own default.")
          .field("momentum", &O::momentum, "sgd (0), muon (0.95): decay of the moment",
                 {.minimum = 0, .maximum = 1, .maximum_open = true})
          .field("dampening", &O::dampening, "sgd (0): the part of a gradient that its moment leaves out",
                 {.minimum = 0, .maximum = 1})
          .field("nesterov", &O::nesterov, "sgd (false), muon (true): look ahead by one moment")
          .field("ns_steps", &O::ns_steps, "muon (5): iterations that make a matrix orthogonal",
                 {.minimum = 1, .maximum = 99})
          .field("adjust_lr_fn", &O::adjust_lr_fn,
                 "muon (match_rms_adamw): the scale by a matrix's shape; `original` wants a learning rate of about "
                 "0.02",
                 {.one_of = {"match_rms_adamw", "original"}})
          .field("decay_rate", &O::decay_rate, "adafactor (-0.8): a gradient's weight is its step to this power",
                 {.maximum = 0})
          .field("clip_threshold", &O::clip_threshold, "adafactor (1): highest root mean square of an update",
                 {.minimum = 1})
          .field("scale_parameter", &O::scale_parameter,
                 "adafactor (false): multiply the learning rate by the parameter's root mean square")
          .renamed("beta2_decay", "decay_rate")
          .renamed("d", "clip_threshold")
          .renamed("betas", "train.adam_beta1 and train.adam_beta2 are the two")
          .renamed("eps", "train.adam_epsilon");
  return schema;
}

const Schema<TrainOptions>& schema_of(TrainOptions*) {
  using O = TrainOptions;
  static const auto schema =
      Schema<O>("train", "How the adapter is trained.")
          .field("num_train_epochs", &O::num_train_epochs, "passes over the training data; may be a fraction",
                 {.minimum = 0, .minimum_open = true})
          .field("max_steps", &O::max_steps, "optimizer steps; replaces num_train_epochs", {.minimum = 1})
          .field("micro_batch_size", &O::micro_batch_size, "windows (packed) or rows that are in memory at once",
                 {.minimum = 1, .maximum = 65536})
          .field("gradient_accumulation_steps", &O::gradient_accumulation_steps,
                 "micro-batches in one optimizer step; the update does not depend on the split",
                 {.minimum = 1, .maximum = 65536})
          .field("learning_rate", &O::learning_rate, "the schedule's highest rate",
                 {.minimum = 0, .minimum_open = true})
          .field("lr_scheduler_type", &O::lr_scheduler_type, "shape of the learning rate over the steps, after warm-up",
                 {.one_of = {"constant", "linear", "cosine", "warmup_stable_decay"}})
          .field("warmup_ratio", &O::warmup_ratio, "part of the steps in which the rate rises from 0",
                 {.minimum = 0, .maximum = 1})
          .field("warmup_steps", &O::warmup_steps, "steps in which the rate rises from 0; replaces warmup_ratio",
                 {.minimum = 0})
          .field("min_lr_ratio", &O::min_lr_ratio, "the schedule's lowest rate, as a part of learning_rate",
                 {.minimum = 0, .maximum = 1})
          .field("decay_ratio", &O::decay_ratio, "part of the steps in which warmup_stable_decay falls",
                 {.minimum = 0, .maximum = 1})
          .field("optimizer", &O::optimizer,
                 "the optimizer; paged ones keep their state on the host when the parameters are on a GPU",
                 {.one_of = optimizer_names()})
          .field("weight_decay", &O::weight_decay, "decoupled weight decay, of all but biases and norms",
                 {.minimum = 0})
          .field("adam_beta1", &O::adam_beta1, "decay of the first moment; null: 0.9",
                 {.minimum = 0, .maximum = 1, .maximum_open = true})
          .field("adam_beta2", &O::adam_beta2, "decay of the second moment; null: 0.999, lion's 0.99",
                 {.minimum = 0, .maximum = 1, .maximum_open = true})
          .field("adam_epsilon", &O::adam_epsilon, "added to the root of the second moment; null: 1e-8",
                 {.minimum = 0, .minimum_open = true})
          .field("optim_args", &O::optim_args, "options of single optimizers")
          .field("loraplus_lr_ratio", &O::loraplus_lr_ratio,
                 "LoRA+: the learning rate of B (and of vectors) is learning_rate times this; 16 is usual",
                 {.minimum = 0, .minimum_open = true})
          .field("loraplus_lr_embedding", &O::loraplus_lr_embedding,
                 "LoRA+: the learning rate of an embedding's A and B", {.minimum = 0, .minimum_open = true})
          .field("max_grad_norm", &O::max_grad_norm, "gradients are scaled down to this global 2-norm; 0: never",
                 {.minimum = 0})
          .field(
              "gradient_checkpointing", &O::gradient_checkpointing,
              "keep only each block's input and run the block again in backward: less memory, about a third more time")
          .field("gradient_checkpointing_every", &O::gradient_checkpointing_every,
                 "run only each n-th block again: 2 saves and costs half as much as 1", {.minimum = 1})
          .field("activation_offloading", &O::activation_offloading,
                 "on a GPU: what gradient_checkpointing keeps of each block waits in the host's memory")
          .field("fit", &O::fit, "choose by memory")
          .field("logging_steps", &O::logging_steps, "steps between lines of metrics.jsonl", {.minimum = 1})
          .field("eval_steps", &O::eval_steps, "steps between validations; null: only at the end", {.minimum = 1})
          .field("save_steps", &O::save_steps,
                 "steps between checkpoints; null: only at the end and when validation improves", {.minimum = 1})
          .field("save_total_limit", &O::save_total_limit,
                 "checkpoints to keep, the newest ones; the best one is kept besides; null: all", {.minimum = 1})
          .field("early_stopping_patience", &O::early_stopping_patience,
                 "validations in a row without improvement before the run stops and ends with the best adapter",
                 {.minimum = 1})
          .field("early_stopping_threshold", &O::early_stopping_threshold,
                 "nats by which the validation loss must fall to count as an improvement", {.minimum = 0})
          .field("load_best_model_at_end", &O::load_best_model_at_end,
                 "end with the adapter of the lowest validation loss, not the last one")
          .renamed("epochs", "num_train_epochs")
          .renamed("num_epochs", "num_train_epochs")
          .renamed("steps", "max_steps")
          .renamed("iters", "max_steps")
          .renamed("max_steps_per_epoch", "max_steps counts the steps of the whole run")
          .renamed("per_device_train_batch_size", "micro_batch_size")
          .renamed("batch_size", "micro_batch_size")
          .renamed("gradient_accumulation", "gradient_accumulation_steps")
          .renamed("grad_accumulation_steps", "gradient_accumulation_steps")
          .renamed("lr", "learning_rate")
          .renamed("lr_scheduler", "lr_scheduler_type")
          .renamed("lr_schedule", "lr_scheduler_type")
          .renamed("num_warmup_steps", "warmup_steps")
          .renamed("cosine_min_lr_ratio", "min_lr_ratio")
          .renamed("min_lr_rate", "min_lr_ratio")
          .renamed("optim", "optimizer")
          .renamed("lora_plus_lr_ratio", "loraplus_lr_ratio")
          .renamed("momentum", "optim_args.momentum")
          .renamed("nesterov", "optim_args.nesterov")
          .renamed("adam_eps", "adam_epsilon")
          .renamed("clip_grad_norm", "max_grad_norm")
          .renamed("gradient_clip_val", "max_grad_norm")
          .renamed("max_norm", "max_grad_norm")
          .renamed("grad_checkpoint", "gradient_checkpointing")
          .renamed("enable_activation_checkpointing", "gradient_checkpointing")
          .renamed("ac_option", "gradient_checkpointing_every")
          .renamed("enable_activation_offloading", "activation_offloading")
          .renamed("max_memory", "fit.memory")
          .renamed("log_every_n_steps", "logging_steps")
          .renamed("steps_per_report", "logging_steps")
          .renamed("steps_per_eval", "eval_steps")
          .renamed("evals_per_epoch", "eval_steps counts optimizer steps between validations")
          .renamed("save_every", "save_steps")
          .renamed("saves_per_epoch", "save_steps counts optimizer steps between checkpoints")
          .renamed("bf16", "model.dtype: bf16 chooses the compute type")
          .renamed("fp16", "model.dtype chooses the compute type: f32 or bf16")
          .renamed("dtype", "model.dtype chooses the compute type: f32 or bf16")
          .rule(check_optimizer)
          .rule([](const O& o, const Yaml& node) {
            if (o.lr_scheduler_type == "constant" && o.min_lr_ratio > 0)
              node["min_lr_ratio"].refuse(
                  "lr_scheduler_type: constant never falls; remove min_lr_ratio or choose another schedule");
            for (const char* key : {"gradient_checkpointing", "gradient_checkpointing_every"})
              if (o.fit && node.has(key)) node[key].refuse("train.fit chooses it; remove one of the two");
            if (o.gradient_checkpointing_every > 1 && !o.gradient_checkpointing)
              node["gradient_checkpointing_every"].refuse("needs gradient_checkpointing: true");
            if (o.activation_offloading && !o.gradient_checkpointing && !o.fit)
              node["activation_offloading"].refuse("needs gradient_checkpointing: true");
            if (o.warmup_steps && o.warmup_ratio > 0)
              node["warmup_ratio"].refuse("warmup_steps says the same thing; remove one of the two");
            if (o.early_stopping_patience && !o.eval_steps)
              node["early_stopping_patience"].refuse("counts validations during the run; set eval_steps too");
          });
  return schema;
}

void check_validation(const TrainOptions& options, bool has_validation) {
  if (has_validation) return;
  const char* needs = options.early_stopping_patience  ? "early_stopping_patience"
                      : options.load_best_model_at_end ? "load_best_model_at_end"
                      : options.eval_steps             ? "eval_steps"
                                                       : nullptr;
  if (needs)
    fail(Exit::usage, "train.{} needs validation data, and data.validation has none. Add rows there or remove the key",
         needs);
}

}  // namespace retort
