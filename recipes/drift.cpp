#include "recipes/drift.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "core/files.h"
#include "data/project_key.h"
#include "models/served.h"
#include "recipes/prepare.h"
#include "recipes/stages.h"

namespace retort {
namespace fs = std::filesystem;

/// Beside the model; the cache is not ours to write in.
static fs::path default_profile(const Recipe& recipe, const fs::path& model) {
  const fs::path name = model.filename().string() + ".drift.json";
  const fs::path cache = cache_folder(), file = fs::absolute(model);
  const bool in_cache = std::mismatch(cache.begin(), cache.end(), file.begin(), file.end()).first == cache.end();
  return in_cache ? recipe.output_dir / recipe.name / name : model.parent_path() / name;
}

DriftSetup set_up_drift(const Recipe& recipe, const ProgressSink& progress) {
  if (!recipe.drift) fail(Exit::usage, "{}: the recipe has no drift block (docs/drift.md)", recipe.file.string());
  DriftSetup setup{*recipe.drift, project_key(recipe.drift->key, "drift.key"), {}, {}};
  Progress shown(progress);
  const PullOptions pulling{.progress = &shown};
  auto fetch = [&](const std::string& path) { return pull(source_of(recipe, path), pulling); };
  DriftOptions& options = setup.options;
  if (options.baseline.empty() && options.baseline_log.empty()) options.baseline = recipe.data.train;
  setup.model = fetch(options.model.empty() ? recipe.model.path : options.model);
  if (fs::is_directory(setup.model))
    fail(Exit::usage, "{}: the champion must be a GGUF file, as it is served: export it and name it as drift.model",
         setup.model.string());
  for (std::vector<DatasetOptions>* files : {&options.baseline, &options.traffic}) {
    for (DatasetOptions& file : *files) resolve_paths(file, fetch);
  }
  if (!options.baseline_log.empty()) options.baseline_log = fetch(options.baseline_log).string();
  if (!options.canaries.path.empty()) options.canaries.path = fetch(options.canaries.path).string();
  setup.profile = options.profile.empty() ? default_profile(recipe, setup.model) : fs::path(options.profile);
  return setup;
}

std::vector<TrafficRow> traffic_of(const std::vector<DatasetOptions>& files, const std::string& order) {
  std::vector<std::pair<std::string, TrafficRow>> rows;
  const Stream<Chat> chats = chats_of(files);
  for (Chat chat; chats(chat);) {
    TrafficRow row;
    row.place = chat.place;
    row.text = chat.text;
    const size_t asked = chat.messages.size() - (!chat.messages.empty() && chat.messages.back().role == "assistant");
    for (size_t i = 0; i < asked; ++i) row.text += (i == 0 ? "" : "\n\n") + chat.messages[i].content;
    row.day = day_of(chat.key);
    rows.emplace_back(chat.key, std::move(row));
  }
  if (order == "key")
    std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<TrafficRow> result;
  for (auto& [key, row] : rows) result.push_back(std::move(row));
  return result;
}

std::vector<TrafficRow> log_rows(const fs::path& path) {
  std::vector<TrafficRow> rows;
  const Stream<TrafficRow> stream = read_traffic(path);
  for (TrafficRow row; stream(row);) rows.push_back(std::move(row));
  if (rows.empty()) fail(Exit::bad_input, "{}: there are no rows in it", path.string());
  return rows;
}

std::vector<TrafficRow> baseline_rows(const DriftSetup& setup) {
  const DriftOptions& options = setup.options;
  std::vector<TrafficRow> rows =
      options.baseline_log.empty() ? traffic_of(options.baseline, options.order) : log_rows(options.baseline_log);
  if (rows.size() < 2) fail(Exit::bad_input, "the baseline has {} rows, at least 2 are needed", rows.size());
  return rows;
}

std::vector<std::string> canary_texts_of(const DriftOptions& options) {
  if (options.canaries.path.empty()) return canary_texts();
  std::vector<std::string> texts;
  for (const TrafficRow& row : log_rows(options.canaries.path)) texts.push_back(row.text);
  return texts;
}

std::pair<Profile, std::string> own_profile(const DriftSetup& setup) {
  if (!fs::exists(setup.profile))
    fail(Exit::usage, "{}: there is no such profile; make it with `retort drift profile`", setup.profile.string());
  return read_profile(setup.profile);
}

MeasureOptions measuring(const DriftSetup& setup, const Recipe& recipe, double gamma) {
  return {.signals = setup.options.signals,
          .max_tokens = setup.options.max_tokens,
          .key = setup.key,
          .threads = static_cast<int>(recipe.threads),
          .gamma = gamma};
}

std::vector<RowMeasure> measured(Measurer& measurer, const std::vector<TrafficRow>& rows, const std::string& task,
                                 const ProgressSink& progress) {
  Progress shown(progress);
  shown.start(task, rows.size());
  auto measures = measurer.measure(rows, [&](size_t done, size_t) { shown.update(done); });
  shown.finish();
  return measures;
}

/// What can be said without loading the model.
static ProfileIdentity identity_of(const Measurer& measurer, const DriftSetup& setup) {
  return {.model = setup.model.filename().string(),
          .model_sha256 = measurer.model_sha256(),
          .tokenizer = measurer.tokenizer().hash(),
          .key = key_id(setup.key),
          .max_tokens = setup.options.max_tokens};
}

Profile profile_of(Measurer& measurer, const DriftSetup& setup, std::span<const RowMeasure> rows) {
  Profile profile;
  profile.identity = identity_of(measurer, setup);
  profile.identity.gamma = measurer.gamma();
  profile.identity.feature_seed = measurer.feature_seed();
  profile.identity.dimensions = measurer.dimensions();
  for (const RowMeasure& row : rows) profile.add(row);
  return profile;
}

/// Writes the profile; what is said of it.
static Json written(const fs::path& path, const Profile& profile) {
  const std::string hash = write_profile(path, profile);
  Json signals = Json::object();
  for (const auto& [name, signal] : profile.signals) {
    signals[name] = {{"rows", signal.rows}};
    if (signal.numbers.count() > 0) signals[name]["mean"] = signal.mean(name);
  }
  return {{"path", path.string()},
          {"sha256", hash},
          {"bytes", fs::file_size(path)},
          {"rows", profile.rows},
          {"signals", signals}};
}

Json build_profile(const Recipe& recipe, const ProgressSink& progress) {
  const DriftSetup setup = set_up_drift(recipe, progress);
  const std::vector<TrafficRow> rows = baseline_rows(setup);
  Measurer measurer(setup.model, measuring(setup, recipe, 0));
  const std::vector<RowMeasure> measures = measured(measurer, rows, "baseline", progress);
  Profile profile = profile_of(measurer, setup, measures);
  profile.canaries = ask_canaries(measurer.model(), measurer.tokenizer(), canary_texts_of(setup.options), setup.key);
  return written(setup.profile, profile);
}

Json merge_profiles(const std::vector<fs::path>& paths, const fs::path& out) {
  Profile merged = read_profile(paths.at(0)).first;
  merged.nulls.clear();
  merged.block = 0;
  for (size_t i = 1; i < paths.size(); ++i) {
    try {
      merged.merge(read_profile(paths[i]).first);
    } catch (const Error& error) {
      fail(error.exit(), "{} beside {}: {}", paths[i].string(), paths[0].string(), error.what());
    }
  }
  return written(out, merged);
}

void require_own(const Profile& profile, const Measurer& measurer, const DriftSetup& setup) {
  ProfileIdentity now = identity_of(measurer, setup);
  now.gamma = profile.identity.gamma;
  now.feature_seed = measurer.feature_seed();
  now.dimensions = profile.identity.dimensions;
  profile.identity.require_same(now, setup.profile.string());
}

Json calibrate_profile(const Recipe& recipe, const ProgressSink& progress) {
  const DriftSetup setup = set_up_drift(recipe, progress);
  Profile profile = own_profile(setup).first;
  Measurer measurer(setup.model, measuring(setup, recipe, profile.identity.gamma));
  require_own(profile, measurer, setup);
  const std::vector<TrafficRow> rows = baseline_rows(setup);
  const std::vector<RowMeasure> measures = measured(measurer, rows, "baseline", progress);
  const Stopwatch watch;
  Progress shown(progress);
  bool started = false;
  const std::vector<std::string> skipped = calibrate(profile, measures, setup.options, [&](size_t done, size_t all) {
    if (!started) shown.start("calibrate", all);
    started = true;
    shown.update(done);
  });
  shown.finish();
  const std::string hash = write_profile(setup.profile, profile);
  Json nulls = Json::array();
  for (const auto& [name, tables] : profile.nulls) nulls.push_back(name);
  return {{"path", setup.profile.string()},
          {"sha256", hash},
          {"bytes", fs::file_size(setup.profile)},
          {"block", profile.block},
          {"resamples", setup.options.calibration.resamples},
          {"sizes", setup.options.calibration.sizes},
          {"nulls", nulls},
          {"skipped", skipped},
          {"seconds", watch.seconds()}};
}

}  // namespace retort
