#include "recipes/retrain.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/signals.h"
#include "core/temporary_folder.h"
#include "data/project_key.h"
#include "models/quantized_checkpoint.h"
#include "monitor/slot.h"
#include "recipes/drift.h"
#include "recipes/guards.h"
#include "recipes/prepare.h"
#include "recipes/retrain_attempts.h"
#include "recipes/retrain_drift.h"
#include "recipes/retrain_due.h"
#include "recipes/retrain_judge.h"
#include "recipes/retrain_rows.h"
#include "recipes/retrain_verdict.h"
#include "recipes/run.h"
#include "recipes/version.h"
#include "registry/registry.h"
#include "report/report.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

Day day_of_second(int64_t second) {
  return std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(second)));
}

const std::string& model_of(const Recipe& recipe) {
  return recipe.retrain->model.empty() ? recipe.name : recipe.retrain->model;
}

fs::path registry_of(const Recipe& recipe) {
  return recipe.retrain->registry.empty() ? recipe.output_dir / "registry" : fs::path(recipe.retrain->registry);
}

/// When the version was promoted last, by a slot or by hand; nothing: never.
std::optional<int64_t> promoted_at(const Registry& registry, const ModelVersion& version) {
  for (const RegistryDecision& decision : registry.decisions(version.model))
    if (decision.kind == "promoted" && decision.champion == version.sha256) return decision.at;
  return std::nullopt;
}

/// One slot under way, or only a look at what it would find.
class Slot {
 public:
  /// A look has no lease, and no registry where there is none yet.
  Slot(const Recipe& recipe, const RetrainRequest& request, Registry* registry, const ModelLease* lease,
       const ProgressSink& progress)
      : recipe_(recipe),
        request_(request),
        options_(*recipe.retrain),
        registry_(registry),
        lease_(lease),
        progress_(progress) {
    now_ = request.now
               ? *request.now
               : std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                     .count();
    name_ = request.slot.empty() ? slot_name(options_.slot, day_of_second(now_)) : request.slot;
    day_ = request.slot.empty() ? day_of_second(now_) : slot_begin(options_.slot, request.slot);
    train_ = with_local_paths(recipe, recipe.data.train, progress);
    validation_ = with_local_paths(recipe, recipe.data.validation, progress);
    Progress shown(progress);
    const fs::path base = pull(source_of(recipe, recipe.model.path), {.progress = &shown});
    const std::string judged = guarded_hash(guard_pass(recipe, train_, validation_, progress), "", "");
    key_ = retrain_key(recipe, train_, validation_, judged, open_checkpoint(base, base_form(recipe))->hash(),
                       build_hash(), name_ + (request.force ? " forced" : ""));
    if (!lease) scratch_.emplace();
    folder_ = lease ? attempts() / key_.substr(0, 12) : scratch_->path();
  }

  fs::path attempts() const { return recipe_.output_dir / "retrain"; }
  const fs::path& folder() const { return folder_; }
  const std::string& key() const { return key_; }

  /// Decides, keeps the verdict, and returns it.
  Json decide();
  /// Whether decide() would find something to do: a verdict that nobody keeps.
  Json look();
  /// Writes what is not written yet, tells who is to be told, and counts. Whoever died here does it the next time.
  void publish(const Json& verdict) const;

 private:
  struct Ending {
    Decision decision;
    std::vector<std::string> reasons;
  };
  Ending end();
  Ending due_or_not();
  Json verdict_of(const Ending& ending) const;
  /// Guards' refusals are verdicts.
  std::optional<Ending> refused_by_guards();
  void gather();
  std::optional<Ending> back_to_previous();
  Ending challenge();
  RunOutcome trained();
  WatchedModel watched(const std::string& sha256, const fs::path& file) const;
  fs::path rows_file(const std::string& sha256) const {
    return registry_->files_of(model_of(recipe_), sha256) / "rows.txt";
  }
  std::optional<ModelVersion> alias(const char* name) const {
    return registry_ ? registry_->alias(model_of(recipe_), name) : std::nullopt;
  }
  bool previous_would_alarm();

  const Recipe& recipe_;
  const RetrainRequest& request_;
  const RetrainOptions& options_;
  Registry* registry_;
  const ModelLease* lease_;
  const ProgressSink& progress_;
  int64_t now_ = 0;
  std::string name_, key_;
  Day day_;
  std::optional<TemporaryFolder> scratch_;
  fs::path folder_;
  std::vector<DatasetOptions> train_, validation_;
  RowSet rows_;
  std::optional<ModelVersion> champion_;
  DueFacts facts_;
  std::vector<TrafficRow> traffic_;              // that the champion's alarm has not passed
  Json drift_;                                   // check_drift's report, or null
  Json verdict_ = Json::object();                // what is known beside decision and reasons
  std::pair<fs::path, std::string> challenger_;  // file, SHA-256
  Json info_;                                    // what the registry keeps of it
};

std::optional<Slot::Ending> Slot::refused_by_guards() {
  const auto hash_of = [](const std::vector<DatasetOptions>& files) {
    Sha256 hash;
    for (const DatasetOptions& file : files) hash.update(dataset_hash(file));
    return hash.hex();
  };
  const GuardPass pass = guard_pass(recipe_, train_, validation_, progress_);
  try {
    RecordedPass recorded(pass, guarded_hash(pass, hash_of(train_), hash_of(validation_)));
    verdict_["guards"] = guards_json(recorded.totals());
  } catch (const Error& error) {
    if (error.exit() == Exit::data_guard) return Ending{Decision::guard_refused, {error.what()}};
    if (error.exit() == Exit::contamination) return Ending{Decision::contaminated, {error.what()}};
    throw;
  }
  return std::nullopt;
}

WatchedModel Slot::watched(const std::string& sha256, const fs::path& file) const {
  // A profile belongs to its settings too: other ones begin another profile, and another alarm.
  DriftOptions settings = *recipe_.drift;
  settings.model = settings.profile = settings.state = "";
  settings.traffic.clear();
  const std::string id =
      sha256_hex(to_json(settings).dump() + keyed_hash(project_key(settings.key, "drift.key"), "profile"))
          .substr(0, 12);
  const fs::path folder = registry_->files_of(model_of(recipe_), sha256);
  WatchedModel model{.model = file, .profile = folder / (id + ".profile.json"), .state = folder / (id + ".alarm.json")};
  if (lease_) {
    fs::create_directories(folder);
    return model;
  }
  for (fs::path* path : {&model.profile, &model.state}) {  // what a look learns is forgotten
    const fs::path copy = folder_ / path->filename();
    if (fs::exists(*path)) fs::copy_file(*path, copy, fs::copy_options::overwrite_existing);
    *path = copy;
  }
  return model;
}

void Slot::gather() {
  rows_ = RowSet::of(train_, recipe_.drift ? project_key(recipe_.drift->key, "drift.key") : "");
  facts_.rows = facts_.new_rows = rows_.size();
  champion_ = alias("champion");
  facts_.champion = champion_.has_value();
  if (!champion_) return;
  verdict_["champion_before"] = {{"sha256", champion_->sha256}};
  if (const fs::path seen = rows_file(champion_->sha256); fs::exists(seen))
    facts_.new_rows = rows_.beyond(RowSet::read(seen));
  const int64_t since = promoted_at(*registry_, *champion_).value_or(champion_->added_at);
  facts_.age_days = static_cast<double>(now_ - since) / 86400;
  if (champion_->verdict.is_object()) verdict_["champion_before"]["slot"] = champion_->verdict["slot"];
  if (!recipe_.drift) return;
  const WatchedModel model = watched(champion_->sha256, champion_->file);
  make_profile(recipe_, model, progress_);
  traffic_ = fresh_traffic(recipe_, request_.traffic, day_of_second(since), day_of_second(now_), progress_);
  std::vector<TrafficRow> unseen = traffic_;
  if (const auto last = last_looked_at(recipe_, model, progress_)) {
    traffic_ = rows_from(traffic_, recipe_.drift->slot, *last, day_);  // the alarm has passed the others
    unseen = rows_from(traffic_, recipe_.drift->slot, *last + 1, day_);
    if (unseen.empty()) unseen = traffic_;
  }
  if (options_.harm && champion_->verdict.is_object() && champion_->verdict.contains("accuracy"))
    facts_.harmful = is_harmful(unseen, champion_->verdict["accuracy"].get<double>(), *options_.harm);
  drift_ = watch(recipe_, model, traffic_, day_, folder_ / "drift", progress_);
  if (drift_.is_null()) return;
  const Json& decision = drift_["drift"]["decision"];
  const bool alarm = decision["alarm"] == Json(true);
  if (alarm || decision["compared"] == Json(true)) facts_.drift = alarm;  // else too few rows to say
  verdict_["drift"] = drift_evidence(drift_["drift"]);
  if (lease_) registry_->keep_drift_state(*lease_, champion_->sha256, name_, verdict_["drift"]);
  verdict_["drift"]["report"] = "drift/report.html";
}

/// Whether this traffic is as strange to the model before.
bool Slot::previous_would_alarm() {
  const ModelVersion previous = *alias("previous");
  WatchedModel model = watched(previous.sha256, previous.file);
  make_profile(recipe_, model, progress_);
  model.state.clear();
  const Json report = watch(recipe_, model, traffic_, day_, folder_ / "drift" / "previous", progress_);
  return report["drift"]["decision"]["alarm"] == Json(true);
}

std::optional<Slot::Ending> Slot::back_to_previous() {
  if (!facts_.drift.value_or(false) || facts_.harmful == false || !alias("previous")) return std::nullopt;
  if (!champion_->verdict.is_object()) return std::nullopt;
  const auto number = [&](Day day) { return slot_number(options_.slot, slot_name(options_.slot, day)); };
  const int64_t age = number(day_) - number(day_of_second(champion_->verdict["decided_at"].get<int64_t>()));
  if (age > options_.watch_slots || options_.watch_slots == 0) return std::nullopt;
  // The drift that asked for this model goes on, and the model before does not know it either: going back is no cure.
  if (champion_->verdict["facts"]["drift"] == Json(true) && facts_.harmful != true && previous_would_alarm())
    return std::nullopt;
  std::vector<std::string> reasons = {
      fmt::format("the alarm was raised {} {}s after the promotion (watch_slots: {}): the model before it serves again",
                  age, options_.slot, options_.watch_slots)};
  for (const Json& reason : drift_["drift"]["decision"]["reasons"]) reasons.push_back(reason);
  return Ending{Decision::rolled_back, reasons};
}

/// The run of this key: the finished one, else a new one or what a crash left of it.
RunOutcome Slot::trained() {
  Recipe recipe = recipe_;
  recipe.output_dir = folder_;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder_ / recipe.name, none)) {
    if (entry.is_symlink() || !fs::exists(entry.path() / "report.json")) continue;
    RunOutcome outcome{.folder = entry.path(), .report = read_json(entry.path() / "report.json"), .refused = false};
    for (const Json& file : outcome.report["export"])
      outcome.refused |= file.contains("gate") && file["gate"]["passed"] == Json(false);
    return outcome;
  }
  return run_recipe(recipe, /*resume=*/true, progress_);
}

Slot::Ending Slot::challenge() {
  const RunOutcome run = trained();
  const Json& exported = run.report["export"];
  verdict_["run"] = fs::relative(run.folder, folder_).string();
  if (run.refused) {
    std::vector<std::string> reasons;
    for (const Json& file : exported)
      if (file.contains("gate"))
        for (const Json& reason : file["gate"]["reasons"])
          reasons.push_back(file["path"].get<std::string>() + ": " + reason.get<std::string>());
    return {Decision::gate_refused, reasons};
  }
  const auto file =
      std::find_if(exported.begin(), exported.end(), [](const Json& entry) { return entry["format"] == "gguf"; });
  const fs::path path = run.folder / (*file)["path"].get<std::string>();
  const std::string sha256 = (*file)["sha256"];
  verdict_["challenger"] = {{"sha256", sha256},
                            {"path", fs::relative(path, folder_).string()},
                            {"bytes", (*file)["bytes"]},
                            {"type", (*file)["type"]}};
  challenger_ = {path, sha256};
  info_ = card_info(recipe_, run.report, *file, verdict_);
  if (stop_signal()) fail(Exit::retry, "stopped by a signal before the gate; the next call goes on from here");
  const Judgement judged = judge(recipe_, champion_ ? champion_->file : fs::path(), path, progress_);
  verdict_["gate"] = judged.verdict.evidence;
  verdict_["evaluations"] = judged.evaluations;
  if (judged.verdict.more_rows) verdict_["more_rows"] = *judged.verdict.more_rows;
  if (judged.accuracy) verdict_["accuracy"] = *judged.accuracy;
  Ending ending{Decision::inconclusive, judged.verdict.reasons};
  if (judged.verdict.decision == PromotionDecision::reject) ending.decision = Decision::rejected;
  if (judged.verdict.decision == PromotionDecision::promote) ending.decision = Decision::promoted;
  if (ending.decision == Decision::rejected) return ending;
  // What belongs to the model lies ready before it serves. An undecided one may be promoted by hand.
  rows_.write(rows_file(sha256));
  if (ending.decision == Decision::inconclusive) {
    if (registry_->challenge(*lease_, path, info_).sha256 != sha256)
      fail(Exit::bad_input, "{}: it changed after it was exported; remove the folder of this slot and call again",
           path.string());
  } else if (recipe_.drift) {
    make_profile(recipe_, watched(sha256, path), progress_);
  }
  return ending;
}

/// What is due before anything is trained.
Slot::Ending Slot::due_or_not() {
  gather();
  if (auto back = back_to_previous()) return *back;
  Due due = is_due(options_, facts_);
  if (request_.force) due = {true, {"asked for by hand (--force)"}};
  verdict_["due"] = due.reasons;
  return {due.due ? Decision::due : Decision::nothing_due, due.reasons};
}

Slot::Ending Slot::end() {
  if (auto refused = refused_by_guards()) return *refused;
  const Ending first = due_or_not();
  if (first.decision != Decision::due) return first;
  log::info("a new model is due: {}", fmt::join(first.reasons, "; "));
  return challenge();
}

Json Slot::verdict_of(const Ending& ending) const {
  Json verdict{{"schema", 1},
               {"name", recipe_.name},
               {"model", model_of(recipe_)},
               {"slot", name_},
               {"key", key_},
               {"decided_at", now_},
               {"decision", name_of(ending.decision)},
               {"exit", exit_of(ending.decision)},
               {"reasons", ending.reasons},
               {"facts", facts_.to_json()}};
  verdict.update(verdict_);
  const std::string serves = ending.decision == Decision::promoted      ? challenger_.second
                             : ending.decision == Decision::rolled_back ? alias("previous")->sha256
                             : champion_                                ? champion_->sha256
                                                                        : "";
  verdict["champion"] = serves.empty() ? Json() : Json{{"sha256", serves}};
  return verdict;
}

Json Slot::look() {
  Ending ending = due_or_not();
  if (ending.decision == Decision::rolled_back) {
    ending.decision = Decision::due;
    ending.reasons.insert(ending.reasons.begin(), "the slot would take the last promotion back");
  }
  if (verdict_.contains("drift")) verdict_["drift"].erase("report");
  return verdict_of(ending);
}

Json Slot::decide() {
  fs::create_directories(folder_);
  mark_attempt(folder_, lease_->model());
  registry_->begin_run(*lease_, key_, name_, now_);
  const Ending ending = end();
  const Json verdict = verdict_of(ending);
  const RegistryDecision decision{.kind = verdict["decision"],
                                  .key = key_,
                                  .slot = name_,
                                  .at = now_,
                                  .exit = exit_of(ending.decision),
                                  .reasons = ending.reasons,
                                  .verdict = verdict,
                                  .challenger = challenger_.second,
                                  .evaluations = verdict_.contains("evaluations") ? verdict_["evaluations"] : Json()};
  if (ending.decision == Decision::promoted)
    registry_->promote(*lease_, challenger_.first, decision, info_);
  else if (ending.decision == Decision::rolled_back)
    registry_->roll_back(*lease_, decision);
  else
    registry_->record(*lease_, decision);
  return verdict;
}

void Slot::publish(const Json& verdict) const {
  if (!fs::exists(folder_ / "verdict.json")) {
    Json report{{"schema", 1}, {"name", recipe_.name}};
    const fs::path run = verdict.contains("run") ? verdict["run"].get<std::string>() : "";
    if (!run.empty() && fs::exists(folder_ / run / "report.json")) {  // else somebody made room
      report = read_json(folder_ / run / "report.json");
      for (Json& file : report["export"]) file["path"] = (run / file["path"].get<std::string>()).string();
      report["commands"] = serve_commands(report);
    }
    report["created"] = slot_name("day", day_of_second(verdict["decided_at"].get<int64_t>()));
    report["retort"] = version();
    report["recipe"] = recipe_.text;
    report["retrain"] = verdict;
    write_verdict(folder_, report);
  }
  try {
    revoke_for(verdict, folder_, options_.router);
  } catch (const Error& error) {
    log::warn("retrain.router: {}", error.what());
  }
  const std::vector<Attempt> decided = decided_attempts(attempts(), lease_->model());
  for (const std::string& problem : tell_verdicts(options_.notify, decided)) log::warn("{}", problem);
  tidy_attempts(decided, options_.keep, folder_);
  tidy_abandoned(attempts(), lease_->model(), folder_);
  if (!options_.metrics.empty()) write_atomic(options_.metrics, retrain_metrics(verdict));
}

}  // namespace

RetrainOutcome retrain(const Recipe& recipe, const RetrainRequest& request, const ProgressSink& progress) {
  check_retrain(recipe);
  if (!request.slot.empty()) slot_number(recipe.retrain->slot, request.slot);
  const fs::path folder = registry_of(recipe);
  if (request.check) {
    std::optional<Registry> registry;
    if (fs::exists(folder / "registry.sqlite")) registry.emplace(folder, Registry::Access::read);
    return {.folder = {}, .verdict = Slot(recipe, request, registry ? &*registry : nullptr, nullptr, progress).look()};
  }
  Registry registry(folder);
  const ModelLease lease = registry.lease(model_of(recipe));
  Slot slot(recipe, request, &registry, &lease, progress);
  RetrainOutcome outcome{.folder = slot.folder(), .verdict = {}};
  const std::optional<Json> known = registry.find_run(slot.key());
  outcome.verdict = known ? *known : slot.decide();
  slot.publish(outcome.verdict);
  if (known) outcome.verdict["repeated"] = true;
  return outcome;
}

}  // namespace retort
