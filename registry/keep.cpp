// What the registry keeps, and what it removes.
#include <set>

#include "core/error.h"
#include "registry/state.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

using Key = std::pair<std::string, std::string>;  // model, SHA-256

std::set<Key> kept_versions(const Database& database, const KeepRule& rule) {
  const int64_t since = time_or_now(rule.now) - rule.days * 86400;
  std::set<Key> kept;
  const auto keep = [&](Statement& row) {
    while (row.step()) kept.emplace(row.text(0), row.text(1));
  };
  Statement aliases(database, "SELECT model, sha256 FROM aliases");
  keep(aliases);
  Statement young(
      database,
      "SELECT model, sha256 FROM versions WHERE added_at >= ?1 UNION SELECT model, challenger FROM decisions "
      "WHERE at >= ?1 UNION SELECT model, champion FROM decisions WHERE at >= ?1");
  keep(young.bind(since));
  Statement last(database,
                 "SELECT model, champion FROM (SELECT model, champion, row_number() OVER (PARTITION BY model ORDER BY "
                 "max(id) DESC) AS place FROM decisions WHERE champion = challenger AND champion <> '' GROUP BY model, "
                 "champion) WHERE place <= ?");
  keep(last.bind(rule.last));
  return kept;
}

uint64_t bytes_below(const fs::path& path) {
  uint64_t bytes = 0;
  std::error_code none;
  for (const auto& entry : fs::recursive_directory_iterator(path, none))
    if (entry.is_regular_file(none)) bytes += entry.file_size(none);
  return bytes;
}

void remove_folder(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail(Exit::io, "{}: cannot remove it: {}", path.string(), error.message());
}

}  // namespace

std::vector<RemovedArtifact> Registry::gc(const KeepRule& rule, bool dry_run) {
  if (rule.last < 0 || rule.days < 0) fail(Exit::usage, "what gc keeps must be 0 or more");
  const Database& database = *state_->database;
  const FileLock lock = state_->files_lock();
  std::vector<RemovedArtifact> removed;
  std::set<std::string> live;
  std::vector<fs::path> folders;
  {
    Transaction transaction(database);
    const std::set<Key> kept = kept_versions(database, rule);
    for (const auto& [model, sha256] : kept) live.insert(sha256);
    Statement row(database,
                  "SELECT v.model, sha256, bytes FROM versions v JOIN artifacts a USING(sha256) WHERE removed_at IS "
                  "NULL ORDER BY v.model, v.added_at");
    while (row.step()) {
      const std::string model = row.text(0), sha256 = row.text(1);
      if (kept.contains({model, sha256})) continue;
      folders.push_back(files_of(model, sha256));
      if (!live.insert(sha256).second) continue;
      removed.push_back({sha256, model, static_cast<uint64_t>(row.integer(2))});
    }
    for (const RemovedArtifact& artifact : removed)
      database.run("UPDATE artifacts SET removed_at = ? WHERE sha256 = ?", time_or_now(rule.now), artifact.sha256);
    // First the database: killed here, the files are nobody's, and the next gc finds them so.
    if (!dry_run) transaction.commit();
    for (const RemovedArtifact& artifact : removed) folders.push_back(state_->folder / "artifacts" / artifact.sha256);
  }
  live.clear();
  Statement row(database, "SELECT sha256 FROM artifacts WHERE removed_at IS NULL");
  while (row.step()) live.insert(row.text(0));
  std::set<fs::path> known(folders.begin(), folders.end());
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(state_->folder / "artifacts", none)) {
    if (live.contains(entry.path().filename().string()) || known.contains(entry.path())) continue;
    removed.push_back({entry.path().filename().string(), "", bytes_below(entry.path())});
    folders.push_back(entry.path());
  }
  if (!dry_run)
    for (const fs::path& folder : folders) remove_folder(folder);
  return removed;
}

}  // namespace retort
