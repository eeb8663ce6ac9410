#include "data/dataset.h"

#include "core/hash.h"

namespace retort {

#define KIND(name) extern const DatasetKind dataset_##name;
#include "dataset_kinds.inc"
#undef KIND

const std::map<std::string, const DatasetKind*>& dataset_kinds() {
  static const std::map<std::string, const DatasetKind*> kinds = {
#define KIND(name) {#name, &dataset_##name},
#include "dataset_kinds.inc"
#undef KIND
  };
  return kinds;
}

namespace {

template <typename V>
std::vector<std::string> names_of(const std::map<std::string, V>& map) {
  std::vector<std::string> names;
  for (const auto& [name, value] : map) names.push_back(name);
  return names;
}

const DatasetKind& kind_of(const DatasetOptions& options) {
  auto it = dataset_kinds().find(options.kind);
  if (it == dataset_kinds().end())
    fail(Exit::usage, "dataset kind \"{}\" is unknown; allowed: {}", options.kind,
         fmt::join(names_of(dataset_kinds()), ", "));
  return *it->second;
}

void rename(Json& object, const std::map<std::string, std::string>& fields) {
  for (const auto& [ours, theirs] : fields) {
    auto it = object.find(theirs);
    if (it == object.end() || ours == theirs) continue;
    Json value = std::move(*it);
    object.erase(it);
    object[ours] = std::move(value);
  }
}

}  // namespace

std::string dataset_option(const DatasetOptions& options, const DatasetKind& kind, const std::string& name) {
  if (auto it = options.options.find(name); it != options.options.end()) return it->second;
  for (const DatasetKindOption& option : kind.options)
    if (option.name == name) return option.otherwise;
  fail(Exit::internal, "dataset kind \"{}\" has no option \"{}\"", options.kind, name);
}

void resolve_paths(DatasetOptions& options, const std::function<std::filesystem::path(const std::string&)>& resolve) {
  options.path = resolve(options.path.string());
  for (const DatasetKindOption& option : kind_of(options).options)
    if (auto it = options.options.find(option.name); option.is_path && it != options.options.end())
      it->second = resolve(it->second).string();
}

Stream<Row> open_rows(const DatasetOptions& options) {
  const DatasetKind& kind = kind_of(options);
  return [rows = kind.open(options), fields = options.fields](Row& row) {
    if (!rows(row)) return false;
    rename(row.fields, fields);
    if (auto messages = row.fields.find("messages"); messages != row.fields.end() && messages->is_array())
      for (Json& message : *messages)
        if (message.is_object()) rename(message, fields);
    return true;
  };
}

Stream<Chat> open_chats(const DatasetOptions& options) {
  return apply_task(
      options.task.value_or(TaskOptions{}), [options] { return open_rows(options); }, options.split, options.limit,
      options.path.string());
}

std::string dataset_hash(const DatasetOptions& options) {
  Sha256 hash;
  // Where the files lie does not matter, what they hold does.
  DatasetOptions placeless = options;
  resolve_paths(placeless, [](const std::string&) { return ""; });
  hash.update(to_json(placeless).dump());
  for (const std::filesystem::path& file : kind_of(options).files(options)) hash.update(sha256_file(file));
  return hash.hex();
}

}  // namespace retort
