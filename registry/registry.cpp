#include "registry/registry.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "registry/state.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

void check_name(const std::string& model) {
  const bool good = !model.empty() && model.size() <= 128 && model[0] != '.' &&
                    std::all_of(model.begin(), model.end(), [](unsigned char c) {
                      return (c < 128 && std::isalnum(c)) || c == '.' || c == '_' || c == '-';
                    });
  if (!good)
    fail(Exit::usage, "\"{}\" is no name for a model: use letters, digits and . _ -, not beginning with a dot", model);
}

std::string who() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return fmt::format("process {} on {}", getpid(), host);
}

constexpr const char* kVersion =
    "SELECT v.model, v.sha256, a.name, a.bytes, v.added_at, v.info, a.removed_at IS NOT NULL, "
    "(SELECT d.verdict FROM decisions d WHERE d.model = v.model AND d.champion = v.sha256 AND d.kind = 'promoted' "
    "AND d.verdict <> 'null' ORDER BY d.id DESC LIMIT 1) FROM versions v JOIN artifacts a USING(sha256) ";

ModelVersion version_of(const fs::path& folder, const Statement& row, const std::string& where) {
  ModelVersion version;
  version.model = row.text(0);
  version.sha256 = row.text(1);
  version.file = artifact_path(folder, version.sha256, row.text(2));
  version.bytes = static_cast<uint64_t>(row.integer(3));
  version.added_at = row.integer(4);
  version.info = parse_json(row.text(5), where);
  version.removed = row.integer(6) != 0;
  version.verdict = row.is_null(7) ? Json() : parse_json(row.text(7), where);
  return version;
}

}  // namespace

Registry::Registry(fs::path folder, Access access) : state_(std::make_unique<State>()) {
  state_->folder = fs::absolute(folder).lexically_normal();
  state_->database = open_tables(state_->folder, access == Access::read);
  try {
    // Who holds the lock puts the links right when done.
    const FileLock lock = state_->files_lock(/*wait=*/false);
    state_->repair_links();
  } catch (const Error& error) {
    const bool may_wait = error.exit() == Exit::retry || access == Access::read;
    if (!may_wait) throw;
  }
}
Registry::~Registry() = default;

const fs::path& Registry::folder() const { return state_->folder; }

ModelLease Registry::lease(const std::string& model) {
  check_name(model);
  const Database& database = *state_->database;
  try {
    ModelLease lease(model, state_->folder / "locks" / (model + ".lease"));
    Transaction transaction(database);
    Statement taken(database,
                    "INSERT INTO leases VALUES(?, 1, ?, ?) ON CONFLICT DO UPDATE SET fence = fence + 1, "
                    "holder = excluded.holder, taken_at = excluded.taken_at RETURNING fence");
    taken.bind(model).bind(who()).bind(time_or_now(0));
    taken.step();
    lease.fence_ = taken.integer(0);
    while (taken.step()) {
    }
    transaction.commit();
    return lease;
  } catch (const Error& error) {
    if (error.exit() != Exit::retry) throw;
    Statement held(database, "SELECT holder FROM leases WHERE model = ?");
    held.bind(model);
    fail(Exit::retry, "{}: {} is changing the model {}; try again later", state_->folder.string(),
         held.step() ? held.text(0) : "another process", model);
  }
}

std::optional<Json> Registry::find_run(const std::string& key) const {
  Statement row(*state_->database, "SELECT verdict FROM runs JOIN decisions ON decision = id WHERE key = ?");
  row.bind(key);
  if (!row.step()) return std::nullopt;
  return parse_json(row.text(0), state_->folder.string());
}

void Registry::begin_run(const ModelLease& lease, const std::string& key, const std::string& slot, int64_t at) {
  const Database& database = *state_->database;
  Transaction transaction(database);
  state_->check(lease);
  database.run(
      "INSERT INTO runs VALUES(?, ?, ?, ?, 1, NULL) ON CONFLICT DO UPDATE SET attempts = attempts + 1 "
      "WHERE decision IS NULL",
      key, lease.model(), slot, time_or_now(at));
  transaction.commit();
}

void Registry::record(const ModelLease& lease, const RegistryDecision& decision) {
  Transaction transaction(*state_->database);
  state_->check(lease);
  RegistryDecision kept = decision;
  kept.champion = state_->alias(lease.model(), "champion");
  state_->add_decision(lease, kept, kept.champion);
  transaction.commit();
}

ModelVersion Registry::challenge(const ModelLease& lease, const fs::path& file, const Json& info) {
  const FileLock lock = state_->files_lock();
  const StoredArtifact artifact = store_artifact(state_->folder, file);
  Transaction transaction(*state_->database);
  state_->check(lease);
  state_->add_version(lease.model(), artifact, info);
  state_->set_alias(lease.model(), "challenger", artifact.sha256);
  transaction.commit();
  return *alias(lease.model(), "challenger");
}

ModelVersion Registry::promote(const ModelLease& lease, const fs::path& file, const RegistryDecision& decision,
                               const Json& info) {
  const FileLock lock = state_->files_lock();
  const StoredArtifact artifact = store_artifact(state_->folder, file);
  if (!decision.challenger.empty() && artifact.sha256 != decision.challenger)
    fail(Exit::bad_input, "{}: has the hash {}, and {} was decided upon: it changed in between; nothing is promoted",
         file.string(), artifact.sha256, decision.challenger);
  Transaction transaction(*state_->database);
  state_->check(lease);
  state_->add_version(lease.model(), artifact, info);
  state_->serve(lease, artifact.sha256, decision);
  transaction.commit();
  point_link(state_->link_of(lease.model()), state_->target_of(lease.model()));
  return *alias(lease.model(), "champion");
}

ModelVersion Registry::promote_version(const ModelLease& lease, const std::string& sha256,
                                       const RegistryDecision& decision) {
  const FileLock lock = state_->files_lock();
  const ModelVersion version = find(lease.model(), sha256);
  if (version.removed || !is_intact(version.file, version.sha256))
    fail(Exit::bad_input, "{}: {}; give the file itself: retort registry promote {} FILE", version.file.string(),
         version.removed ? "was removed by gc" : "is missing or no longer has its hash", lease.model());
  Transaction transaction(*state_->database);
  state_->check(lease);
  state_->serve(lease, version.sha256, decision);
  transaction.commit();
  point_link(state_->link_of(lease.model()), state_->target_of(lease.model()));
  return *alias(lease.model(), "champion");
}

ModelVersion Registry::roll_back(const ModelLease& lease, const RegistryDecision& decision) {
  const auto previous = alias(lease.model(), "previous");
  if (!previous)
    fail(Exit::usage, "{}: the model {} has no previous version to go back to; `retort registry show {}` lists all",
         state_->folder.string(), lease.model(), lease.model());
  RegistryDecision kept = decision;
  if (kept.kind.empty()) kept.kind = "rolled_back";
  return promote_version(lease, previous->sha256, kept);
}

std::vector<std::string> Registry::models() const {
  std::vector<std::string> names;
  Statement row(*state_->database, "SELECT name FROM models ORDER BY name");
  while (row.step()) names.push_back(row.text(0));
  return names;
}

std::optional<ModelVersion> Registry::alias(const std::string& model, const std::string& name) const {
  Statement row(*state_->database, std::string(kVersion) +
                                       "JOIN aliases l ON l.model = v.model AND l.sha256 = v.sha256 "
                                       "WHERE l.model = ? AND l.alias = ?");
  row.bind(model).bind(name);
  if (!row.step()) return std::nullopt;
  return version_of(state_->folder, row, state_->folder.string());
}

std::vector<ModelVersion> Registry::versions(const std::string& model) const {
  std::vector<ModelVersion> versions;
  Statement row(*state_->database, std::string(kVersion) + "WHERE v.model = ? ORDER BY v.added_at DESC, v.rowid DESC");
  row.bind(model);
  while (row.step()) versions.push_back(version_of(state_->folder, row, state_->folder.string()));
  return versions;
}

ModelVersion Registry::find(const std::string& model, const std::string& name) const {
  const std::vector<std::string> names = models();
  if (std::find(names.begin(), names.end(), model) == names.end())
    fail(Exit::usage, "{}: there is no model \"{}\"; there are: {}", state_->folder.string(), model,
         names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  if (auto version = alias(model, name)) return *version;
  std::vector<ModelVersion> found;
  std::vector<std::string> all;
  for (ModelVersion& version : versions(model)) {
    all.push_back(version.sha256.substr(0, 12));
    if (name.size() >= 4 && version.sha256.starts_with(name)) found.push_back(std::move(version));
  }
  if (found.size() != 1)
    fail(Exit::usage, "{}: \"{}\" is {} of {}; say champion, previous, challenger or the first digits of: {}",
         state_->folder.string(), name, found.empty() ? "no version" : "more than one version", model,
         fmt::join(all, ", "));
  return found.front();
}

std::vector<RegistryDecision> Registry::decisions(const std::string& model, int64_t limit) const {
  const Database& database = *state_->database;
  const std::string where = state_->folder.string();
  std::vector<RegistryDecision> decisions;
  Statement row(database,
                "SELECT d.id, at, kind, d.slot, exit, reasons, verdict, challenger, champion, fence, key "
                "FROM decisions d LEFT JOIN runs ON decision = d.id WHERE d.model = ? ORDER BY d.id DESC LIMIT ?");
  row.bind(model).bind(limit > 0 ? limit : int64_t{-1});
  while (row.step()) {
    RegistryDecision decision;
    decision.kind = row.text(2);
    decision.id = row.integer(0);
    decision.at = row.integer(1);
    decision.slot = row.text(3);
    decision.exit = static_cast<int>(row.integer(4));
    for (const Json& reason : parse_json(row.text(5), where)) decision.reasons.push_back(reason);
    decision.verdict = parse_json(row.text(6), where);
    decision.challenger = row.text(7);
    decision.champion = row.text(8);
    decision.fence = row.integer(9);
    decision.key = row.text(10);
    decision.evaluations = Json::array();
    decisions.push_back(std::move(decision));
  }
  return decisions;
}

Json Registry::evaluations(const std::string& model, const std::string& sha256) const {
  Json list = Json::array();
  Statement row(*state_->database,
                "SELECT e.name, data, \"on\", value, stderr, n, d.at FROM evaluations e JOIN decisions d "
                "ON e.decision = d.id WHERE e.model = ? AND e.sha256 = ? ORDER BY d.id DESC, e.rowid");
  row.bind(model).bind(sha256);
  const auto number = [&](int column) { return row.is_null(column) ? Json() : Json(row.real(column)); };
  while (row.step())
    list.push_back({{"name", row.text(0)},
                    {"data", row.text(1)},
                    {"on", row.text(2)},
                    {"value", number(3)},
                    {"stderr", number(4)},
                    {"n", row.is_null(5) ? Json() : Json(row.integer(5))},
                    {"at", row.integer(6)}});
  return list;
}

Json Registry::keep_drift_state(const ModelLease& lease, const std::string& sha256, const std::string& slot,
                                const Json& state) {
  const Database& database = *state_->database;
  Transaction transaction(database);
  state_->check(lease);
  database.run("INSERT INTO drift_states VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", lease.model(), sha256, slot,
               time_or_now(0), state.dump());
  Statement row(database, "SELECT state FROM drift_states WHERE model = ? AND sha256 = ? AND slot = ?");
  row.bind(lease.model()).bind(sha256).bind(slot);
  row.step();
  Json kept = parse_json(row.text(0), state_->folder.string());
  transaction.commit();
  return kept;
}

Json Registry::drift_state(const std::string& model, const std::string& sha256) const {
  Statement row(*state_->database,
                "SELECT state FROM drift_states WHERE model = ? AND sha256 = ? ORDER BY rowid DESC LIMIT 1");
  row.bind(model).bind(sha256);
  return row.step() ? parse_json(row.text(0), state_->folder.string()) : Json();
}

fs::path Registry::files_of(const std::string& model, const std::string& sha256) const {
  check_name(model);
  return state_->folder / "models" / model / "versions" / sha256;
}

}  // namespace retort
