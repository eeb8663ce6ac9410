#include "trainer/checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <charconv>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "models/safetensors.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr int64_t format_version = 1;
constexpr const char* state_file = "optimizer.safetensors";
constexpr const char* objective_file = "objective.safetensors";

std::vector<std::pair<std::string, at::Generator>> generators(const Optimizer& optimizer) {
  std::vector<std::pair<std::string, at::Generator>> out{
      {"generator.cpu", at::globalContext().defaultGenerator(at::Device(at::kCPU))}};
  const at::Device device = optimizer.parameters()[0].tensor.device();
  if (!device.is_cpu()) out.emplace_back("generator." + device.str(), at::globalContext().defaultGenerator(device));
  return out;
}

// The tensor of that name, of exactly the target's dtype and shape, copied into it.
void copy_tensor(const SafetensorsFile& file, const std::string& name, const at::Tensor& target) {
  const SafetensorsEntry* entry = file.find(name);
  if (!entry) fail(Exit::bad_input, "{}: tensor \"{}\" is missing", file.path().string(), name);
  if (entry->type != target.scalar_type() || at::IntArrayRef(entry->shape) != target.sizes()) {
    fail(Exit::bad_input, "{}: tensor \"{}\" is {} [{}], the run needs {} [{}]", file.path().string(), name,
         entry->dtype, fmt::join(entry->shape, ", "), c10::toString(target.scalar_type()),
         fmt::join(target.sizes(), ", "));
  }
  at::NoGradGuard no_grad;
  target.copy_(file.tensor(name));
}

void require_same(const Json& stored, const Json& now, const std::string& where) {
  std::set<std::string> keys;
  for (const Json* object : {&stored, &now})
    for (const auto& [key, value] : object->items()) keys.insert(key);
  auto shown = [](const Json& object, const std::string& key) {
    auto it = object.find(key);
    return it == object.end() ? std::string("nothing") : it->dump();
  };
  for (const auto& key : keys) {
    const std::string then = shown(stored, key), today = shown(now, key);
    if (then == today) continue;
    fail(Exit::usage,
         "{}: the checkpoint was made with {} = {}, this run has {}. A run goes on only with what it began with: set "
         "it back, or start a new run",
         where, key, then, today);
  }
}

}  // namespace

Json TrainState::to_json() const {
  Json object{{"step", step},
              {"tokens", tokens},
              {"trained_tokens", trained_tokens},
              {"loss_first", loss_first},
              {"loss_last", loss_last},
              {"seconds", seconds},
              {"peak_memory_bytes", peak_memory_bytes},
              {"pending_loss", pending_loss},
              {"pending_trained", pending_trained},
              {"pending_tokens", pending_tokens},
              {"pending_seconds", pending_seconds},
              {"evaluations_without_improvement", evaluations_without_improvement},
              {"stopped_early", stopped_early},
              {"metrics_bytes", lengths.metrics},
              {"tensorboard_bytes", lengths.tensorboard}};
  if (validation_loss) object["validation_loss"] = *validation_loss;
  if (best) object["best"] = {{"step", best->step}, {"validation_loss", best->validation_loss}};
  return object;
}

TrainState TrainState::from_json(const Json& object, const std::string& where) {
  TrainState s;
  auto read = [&](const char* key, auto& value) {
    value = json_get<std::decay_t<decltype(value)>>(object, key, where);
  };
  read("step", s.step);
  read("tokens", s.tokens);
  read("trained_tokens", s.trained_tokens);
  read("loss_first", s.loss_first);
  read("loss_last", s.loss_last);
  read("seconds", s.seconds);
  read("peak_memory_bytes", s.peak_memory_bytes);
  read("pending_loss", s.pending_loss);
  read("pending_trained", s.pending_trained);
  read("pending_tokens", s.pending_tokens);
  read("pending_seconds", s.pending_seconds);
  read("evaluations_without_improvement", s.evaluations_without_improvement);
  read("stopped_early", s.stopped_early);
  read("metrics_bytes", s.lengths.metrics);
  read("tensorboard_bytes", s.lengths.tensorboard);
  if (object.contains("validation_loss")) s.validation_loss = json_get<double>(object, "validation_loss", where);
  if (object.contains("best")) {
    const Json& best = object["best"];
    s.best = Best{json_get<int64_t>(best, "step", where), json_get<double>(best, "validation_loss", where)};
  }
  if (s.step < 0) fail(Exit::bad_input, "{}: step is {}", where, s.step);
  return s;
}

fs::path checkpoint_path(const fs::path& checkpoints, int64_t step) {
  return checkpoints / fmt::format("step-{:06}", step);
}

std::vector<CheckpointFolder> list_checkpoints(const fs::path& checkpoints) {
  std::vector<CheckpointFolder> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || !entry.is_directory()) continue;
    int64_t step = -1;
    const auto [end, code] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (code == std::errc() && end == name.data() + name.size() && step >= 0) found.push_back({step, entry.path()});
  }
  if (error && error != std::errc::no_such_file_or_directory)
    fail(Exit::io, "{}: cannot list the checkpoints: {}", checkpoints.string(), error.message());
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

void save_checkpoint(const fs::path& path, const Optimizer& optimizer, const Loader& loader, const TrainState& state,
                     const Json& identity, const ObjectiveState* objective,
                     const std::function<void(const fs::path&)>& save_adapter) {
  AtomicFolder folder(path);
  save_adapter(folder.temporary() / "adapter");
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& p : optimizer.state()) tensors.emplace_back(p.name, p.tensor);
  for (const auto& [name, generator] : generators(optimizer)) tensors.emplace_back(name, generator.get_state());
  write_safetensors(folder.temporary() / state_file, tensors, {{"format", "pt"}});
  Json json{{"format", format_version},
            {"state", state.to_json()},
            {"loader", loader.state()},
            {"threads", at::get_num_threads()},
            {"identity", identity}};
  if (objective) {
    json["objective"] = {{"numbers", objective->numbers}, {"sums", objective->sums}};
    tensors.clear();
    for (const Parameter& p : objective->parameters) tensors.emplace_back(p.name, p.tensor.detach());
    tensors.insert(tensors.end(), objective->tensors.begin(), objective->tensors.end());
    if (!tensors.empty()) write_safetensors(folder.temporary() / objective_file, tensors, {{"format", "pt"}});
  }
  write_json(folder.temporary() / "state.json", json);
  folder.commit();
}

TrainState load_checkpoint(const fs::path& path, Optimizer& optimizer, Loader& loader, const Json& identity,
                           ObjectiveState* objective) {
  const fs::path file = path / "state.json";
  const std::string where = file.string();
  const Json json = read_json(file);
  const auto version = json_get<int64_t>(json, "format", where);
  if (version != format_version)
    fail(Exit::bad_input, "{}: format is {}, this program reads {}", where, version, format_version);
  require_same(json_get<Json>(json, "identity", where), identity, where);
  const TrainState state = TrainState::from_json(json_get<Json>(json, "state", where), where);
  loader.restore(json_get<Json>(json, "loader", where));
  if (const auto threads = json_get<int>(json, "threads", where); threads != at::get_num_threads())
    log::warn("the checkpoint was made with {} threads, this run has {}: results may differ in the last digit", threads,
              at::get_num_threads());
  std::vector<Parameter> parameters = optimizer.parameters();
  if (objective) {
    const auto numbers = json_get<Json>(json, "objective", where);
    objective->numbers = json_get<std::map<std::string, double>>(numbers, "numbers", where);
    objective->sums = json_get<std::map<std::string, double>>(numbers, "sums", where);
    objective->tensors.clear();
    if (!objective->parameters.empty() || fs::exists(path / objective_file)) {
      const auto file = SafetensorsFile::open(path / objective_file);
      for (const SafetensorsEntry& entry : file->entries())
        objective->tensors[entry.name] = file->tensor(entry.name).clone();
      for (const Parameter& p : objective->parameters) {
        copy_tensor(*file, p.name, p.tensor);
        objective->tensors.erase(p.name);
        std::erase_if(parameters, [&](const Parameter& other) { return other.tensor.is_same(p.tensor); });
      }
    }
  }
  load_parameters(path, parameters);
  const auto tensors = SafetensorsFile::open(path / state_file);
  for (const auto& p : optimizer.state()) copy_tensor(*tensors, p.name, p.tensor);
  optimizer.set_steps(state.step);
  for (auto& [name, generator] : generators(optimizer)) {
    at::Tensor bytes = generator.get_state().clone();
    copy_tensor(*tensors, name, bytes);
    try {
      generator.set_state(bytes);
    } catch (const c10::Error& error) {
      fail(Exit::bad_input, "{}: tensor \"{}\" is no generator state: {}", tensors->path().string(), name,
           error.what_without_backtrace());
    }
  }
  return state;
}

void load_parameters(const fs::path& path, const std::vector<Parameter>& parameters) {
  const auto file = SafetensorsFile::open(path / "adapter" / "adapter_model.safetensors");
  for (const auto& p : parameters) {
    // An adapter that starts from the weight is saved with that start below and beside it.
    const std::string name = "base_model.model." + p.name;
    const SafetensorsEntry* entry = file->find(name);
    const bool wider = entry && entry->shape.size() == 2 && p.tensor.dim() == 2 &&
                       at::IntArrayRef(entry->shape) != p.tensor.sizes() && entry->shape[0] >= p.tensor.size(0) &&
                       entry->shape[1] >= p.tensor.size(1);
    if (!wider) {
      copy_tensor(*file, name, p.tensor);
    } else {
      const at::Tensor stored = file->tensor(name);
      p.tensor.detach().copy_(stored.narrow(0, 0, p.tensor.size(0)).narrow(1, 0, p.tensor.size(1)));
    }
  }
}

void prune_checkpoints(const fs::path& checkpoints, std::optional<int64_t> limit, const std::optional<Best>& best) {
  if (!limit) return;
  auto folders = list_checkpoints(checkpoints);
  std::error_code error;
  std::erase_if(folders, [&](const auto& folder) { return best && folder.step == best->step; });
  for (size_t i = 0; i + static_cast<size_t>(*limit) < folders.size(); ++i) {
    // The name goes first, so that a kill in between leaves no checkpoint with half of its files.
    const fs::path doomed = checkpoints / ".removed";
    fs::remove_all(doomed, error);
    fs::rename(folders[i].path, doomed, error);
    if (!error) fs::remove_all(doomed, error);
    if (error) log::warn("{}: cannot remove the old checkpoint: {}", folders[i].path.string(), error.message());
  }
}

}  // namespace retort
