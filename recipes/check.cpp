#include "recipes/check.h"

#include "adapters/attach.h"
#include "core/memory.h"
#include "models/served.h"
#include "recipes/distill.h"
#include "recipes/guards.h"
#include "recipes/prepare.h"
#include "recipes/retrain_judge.h"
#include "recipes/run_folder.h"
#include "recipes/stages.h"
#include "trainer/plan.h"

namespace retort {

Json check_recipe(const Recipe& recipe, const ProgressSink& progress) {
  check_run_folder(recipe);
  if (recipe.retrain) check_retrain(recipe);
  const Prepared prepared = prepare(recipe, std::time(nullptr), progress);
  const auto model = CausalLM::load(*prepared.checkpoint, load_options(recipe));
  check_against_model(recipe, prepared, *model);
  CheckedTeachers teachers;
  if (recipe.distill) teachers = check_distillation(recipe, prepared, *model, progress);
  const AttachReport attached =
      attach(*model, recipe.adapter, static_cast<uint64_t>(recipe.seed), original_weights(*prepared.checkpoint));
  const Fit fit = fitted(recipe, prepared, *model);
  const TrainPlan plan = plan_training(*model, *prepared.train, prepared.validation.get(), fit.options,
                                       static_cast<uint64_t>(recipe.seed));
  const std::vector<EvaluationRow> rows = evaluation_rows(recipe, prepared);
  if (prepared.checkpoint->is_gguf()) ServedModel::open(prepared.model_path);  // the run evaluates it in llama.cpp

  Json check = {{"name", recipe.name},
                {"model",
                 {{"path", prepared.model_path.string()},
                  {"family", prepared.checkpoint->config().family},
                  {"base", recipe.model.base},
                  {"weights_bytes", model->weight_bytes()}}},
                {"targets", targets_of(*model)},
                {"parameters", {{"trainable", attached.trainable}, {"frozen", attached.frozen}}},
                {"data", {{"ledger", prepared.train->ledger().to_json()}, {"windows", prepared.train->windows()}}},
                {"evaluation_rows", rows.size()},
                {"plan", plan.to_json()},
                {"predicted_memory_bytes", plan.memory.total()},
                {"available_memory_bytes", available_memory_bytes()}};
  check["guards"] = guards_json(prepared.guards);
  if (recipe.distill) check["teachers"] = teachers.json;
  if (recipe.train.fit) check["fit"] = fit.to_json();
  if (prepared.validation) check["data"]["validation"] = prepared.validation->ledger().to_json();
  return check;
}

std::string describe_check(const Json& check) {
  const auto number = [](const Json& value) { return value.get<int64_t>(); };
  const Json &plan = check["plan"], &ledger = check["data"]["ledger"];
  std::string text = fmt::format("{}\n\nmodel        {} ({}, base {}), weights {}\n", check["name"].get<std::string>(),
                                 check["model"]["path"].get<std::string>(), check["model"]["family"].get<std::string>(),
                                 check["model"]["base"].get<std::string>(),
                                 format_bytes(check["model"]["weights_bytes"].get<uint64_t>()));
  for (const Json& target : check["targets"])
    text += fmt::format("target       {} × {} [{} × {}], {} parameters\n", number(target["count"]),
                        target["name"].get<std::string>(), number(target["shape"][0]), number(target["shape"][1]),
                        number(target["parameters"]));
  text += fmt::format("parameters   {} trained, {} frozen\n", number(check["parameters"]["trainable"]),
                      number(check["parameters"]["frozen"]));
  text += fmt::format("data         {} rows, {} tokens, {} trained; {} truncated, {} windows\n", number(ledger["rows"]),
                      number(ledger["tokens"]), number(ledger["trained_tokens"]), number(ledger["truncated"]),
                      number(check["data"]["windows"]));
  for (const auto& [reason, rows] : ledger["dropped"].items())
    text += fmt::format("dropped      {} rows: {}\n", number(rows), reason);
  text += describe_guards(check["guards"]);
  if (check.contains("teachers"))
    for (const Json& teacher : check["teachers"])
      text += fmt::format(
          "teacher      {} ({}, {}); {}; {}\n", teacher["teacher"].get<std::string>(),
          teacher["engine"].get<std::string>(), teacher["quantization"].get<std::string>(),
          teacher["vocabulary"].get<std::string>(),
          teacher["cache"].is_null() ? "asked in every step" : "cached in " + teacher["cache"].get<std::string>());
  text += fmt::format("plan         {} steps, {} tokens, {} trained; largest micro-batch {} tokens\n",
                      number(plan["steps"]), number(plan["tokens"]), number(plan["trained_tokens"]),
                      number(plan["largest_micro_batch"]));
  if (check.contains("fit")) text += fmt::format("fit          {}\n", check["fit"]["reason"].get<std::string>());
  text += fmt::format("memory       {} at the peak; {} are free here\n",
                      format_bytes(check["predicted_memory_bytes"].get<uint64_t>()),
                      format_bytes(check["available_memory_bytes"].get<uint64_t>()));
  if (plan["seconds"].get<double>() > 0)
    text += fmt::format("time         about {:.0f} min of training at {:.0f} tokens/s\n",
                        plan["seconds"].get<double>() / 60, plan["tokens_per_second"].get<double>());
  if (check["predicted_memory_bytes"].get<uint64_t>() > check["available_memory_bytes"].get<uint64_t>())
    text += "warning      this is more memory than is free: train.fit can choose what fits\n";
  return text;
}

}  // namespace retort
