// The registry's writes, inside the transactions of registry.cpp.
#include <chrono>

#include "core/error.h"
#include "registry/state.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

std::string text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string text_at(const Json& object, const char* key, const std::string& otherwise) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

void bind_number(Statement& statement, const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number())
    statement.bind(nullptr);
  else
    statement.bind(found->get<double>());
}

}  // namespace

int64_t time_or_now(int64_t at) {
  if (at != 0) return at;
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

fs::path Registry::State::target_of(const std::string& model) const {
  Statement row(*database,
                "SELECT sha256, name FROM aliases JOIN artifacts USING(sha256) WHERE model = ? AND alias = "
                "'champion'");
  row.bind(model);
  if (!row.step()) return {};
  // Relative, so that the folder can be moved.
  return fs::path("../..") / "artifacts" / row.text(0) / row.text(1);
}

void Registry::State::repair_links() const {
  Statement row(*database, "SELECT name FROM models");
  while (row.step()) point_link(link_of(row.text(0)), target_of(row.text(0)));
}

void Registry::State::check(const ModelLease& lease) const {
  Statement row(*database, "SELECT fence, holder FROM leases WHERE model = ?");
  row.bind(lease.model());
  if (!row.step() || row.integer(0) != lease.fence())
    fail(Exit::retry, "{}: this process no longer holds the model {}: {} took it over; nothing was written",
         folder.string(), lease.model(), row.text(1));
  database->run("INSERT INTO models VALUES(?, ?) ON CONFLICT DO NOTHING", lease.model(), time_or_now(0));
}

std::string Registry::State::alias(const std::string& model, const std::string& name) const {
  Statement row(*database, "SELECT sha256 FROM aliases WHERE model = ? AND alias = ?");
  row.bind(model).bind(name);
  return row.step() ? row.text(0) : "";
}

void Registry::State::set_alias(const std::string& model, const std::string& name, const std::string& sha256) const {
  if (sha256.empty())
    database->run("DELETE FROM aliases WHERE model = ? AND alias = ?", model, name);
  else
    database->run("INSERT INTO aliases VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET sha256 = excluded.sha256", model, name,
                  sha256);
}

void Registry::State::add_version(const std::string& model, const StoredArtifact& artifact, const Json& info) const {
  const int64_t now = time_or_now(0);
  database->run(
      "INSERT INTO artifacts VALUES(?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE SET removed_at = NULL, name = "
      "excluded.name",
      artifact.sha256, artifact.name, static_cast<int64_t>(artifact.bytes), now);
  database->run("INSERT INTO versions VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET info = excluded.info", model,
                artifact.sha256, now, text(info));
}

void Registry::State::add_decision(const ModelLease& lease, const RegistryDecision& decision,
                                   const std::string& before) const {
  database->run("INSERT INTO decisions VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", lease.model(),
                time_or_now(decision.at), decision.kind, decision.slot, int64_t{decision.exit}, text(decision.reasons),
                text(decision.verdict), decision.challenger, decision.champion, lease.fence());
  const int64_t id = database->last_row();
  if (!decision.key.empty()) {
    Statement finished(*database,
                       "INSERT INTO runs VALUES(?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET decision = "
                       "excluded.decision WHERE decision IS NULL RETURNING 1");
    finished.bind(decision.key).bind(lease.model()).bind(decision.slot).bind(time_or_now(decision.at)).bind(id);
    if (!finished.step()) fail(Exit::usage, "{}: the run {} has its verdict already", folder.string(), decision.key);
    finished.step();
  }
  if (!decision.evaluations.is_array()) return;
  for (const Json& entry : decision.evaluations) {
    const std::string on = text_at(entry, "on", "");
    const std::string sha256 = text_at(entry, "sha256", on == "champion" ? before : decision.challenger);
    if (sha256.empty()) continue;
    Statement row(*database, "INSERT INTO evaluations VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)");
    row.bind(id).bind(lease.model()).bind(sha256).bind(text_at(entry, "name", text_at(entry, "kind", "")));
    row.bind(text_at(entry, "data", "")).bind(on);
    bind_number(row, entry, "value");
    bind_number(row, entry, "stderr");
    const auto n = entry.find("n");
    if (n != entry.end() && n->is_number_integer())
      row.bind(n->get<int64_t>());
    else
      row.bind(nullptr);
    row.step();
  }
}

void Registry::State::serve(const ModelLease& lease, const std::string& sha256, RegistryDecision decision) const {
  const std::string& model = lease.model();
  const std::string before = alias(model, "champion");
  const bool back = decision.kind == "rolled_back";
  if (before != sha256) {
    // Going back leaves nothing to go back to: the model that was taken back must not return by one more command.
    set_alias(model, "previous", back ? "" : before);
    set_alias(model, "champion", sha256);
  }
  // An undecided one from before this promotion would have to beat another champion: gc may have it.
  if (!back || alias(model, "challenger") == sha256) set_alias(model, "challenger", "");
  if (decision.kind.empty()) decision.kind = "promoted";
  decision.challenger = decision.champion = sha256;
  add_decision(lease, decision, before);
}

}  // namespace retort
