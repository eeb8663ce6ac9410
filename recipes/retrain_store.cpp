#include "recipes/retrain_store.h"

#include "core/error.h"

namespace retort {
namespace fs = std::filesystem;

struct RetrainStore::State {
  fs::path folder, file;
  std::unique_ptr<FileLock> lock;
  Json json;
  void save() const { write_json(file, json); }
  std::optional<StoredModel> model(const char* alias) const {
    if (!json[alias].is_string()) return std::nullopt;
    const std::string sha = json[alias];
    return StoredModel{sha, folder / "artifacts" / (sha + ".gguf"), json["models"][sha]};
  }
};

RetrainStore::RetrainStore(const Recipe& recipe) : state_(std::make_unique<State>()) {
  state_->folder =
      recipe.retrain->registry.empty() ? recipe.output_dir / "registry" : fs::path(recipe.retrain->registry);
  const std::string model = recipe.retrain->model.empty() ? recipe.name : recipe.retrain->model;
  fs::create_directories(state_->folder);
  state_->file = state_->folder / (model + ".json");
  state_->lock = std::make_unique<FileLock>(state_->folder / (model + ".lock"), false);
  state_->json =
      fs::exists(state_->file)
          ? read_json(state_->file)
          : Json{
                {"champion", nullptr}, {"previous", nullptr}, {"models", Json::object()}, {"verdicts", Json::object()}};
}
RetrainStore::~RetrainStore() = default;

std::optional<Json> RetrainStore::verdict(const std::string& key) const {
  const auto it = state_->json["verdicts"].find(key);
  return it == state_->json["verdicts"].end() ? std::nullopt : std::optional<Json>(*it);
}
std::optional<StoredModel> RetrainStore::champion() const { return state_->model("champion"); }
std::optional<StoredModel> RetrainStore::previous() const { return state_->model("previous"); }

void RetrainStore::record(const std::string& key, const Json& verdict) {
  state_->json["verdicts"][key] = verdict;
  state_->save();
}

void RetrainStore::promote(const std::string& key, const Json& verdict, const fs::path& file,
                           const std::string& sha256) {
  const fs::path to = state_->folder / "artifacts" / (sha256 + ".gguf");
  if (!fs::exists(to)) copy_atomic(file, to);
  state_->json["verdicts"][key] = verdict;
  state_->json["models"][sha256] = verdict;
  if (state_->json["champion"] != Json(sha256)) state_->json["previous"] = state_->json["champion"];
  state_->json["champion"] = sha256;
  state_->save();
}

void RetrainStore::roll_back(const std::string& key, const Json& verdict) {
  state_->json["verdicts"][key] = verdict;
  std::swap(state_->json["champion"], state_->json["previous"]);
  state_->json["previous"] = nullptr;
  state_->save();
}

fs::path RetrainStore::files_of(const std::string& sha256) const {
  return state_->folder / "watched" / sha256.substr(0, 16);
}

}  // namespace retort
