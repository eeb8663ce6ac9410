#include "registry/tables.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kApplication = 0x52745274;  // "RtRt": whose database this is

/// One script a version; a script never changes once it was released.
const std::array kMigrations = {R"sql(
CREATE TABLE artifacts(
  sha256 TEXT PRIMARY KEY CHECK(length(sha256) = 64), name TEXT NOT NULL, bytes INTEGER NOT NULL,
  added_at INTEGER NOT NULL, removed_at INTEGER) STRICT;
CREATE TABLE models(name TEXT PRIMARY KEY, added_at INTEGER NOT NULL) STRICT;
CREATE TABLE versions(
  model TEXT NOT NULL REFERENCES models, sha256 TEXT NOT NULL REFERENCES artifacts, added_at INTEGER NOT NULL,
  info TEXT NOT NULL, PRIMARY KEY(model, sha256)) STRICT;
CREATE TABLE aliases(
  model TEXT NOT NULL, alias TEXT NOT NULL CHECK(alias IN ('champion', 'challenger', 'previous')),
  sha256 TEXT NOT NULL, PRIMARY KEY(model, alias), FOREIGN KEY(model, sha256) REFERENCES versions) STRICT;
CREATE TABLE decisions(
  id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL REFERENCES models, at INTEGER NOT NULL, kind TEXT NOT NULL,
  slot TEXT NOT NULL, exit INTEGER NOT NULL, reasons TEXT NOT NULL, verdict TEXT NOT NULL,
  challenger TEXT NOT NULL, champion TEXT NOT NULL, fence INTEGER NOT NULL) STRICT;
CREATE INDEX decisions_of_model ON decisions(model, id);
CREATE TABLE runs(
  key TEXT PRIMARY KEY, model TEXT NOT NULL REFERENCES models, slot TEXT NOT NULL, started_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL, decision INTEGER UNIQUE REFERENCES decisions) STRICT;
CREATE TABLE evaluations(
  decision INTEGER NOT NULL REFERENCES decisions, model TEXT NOT NULL, sha256 TEXT NOT NULL, name TEXT NOT NULL,
  data TEXT NOT NULL, "on" TEXT NOT NULL, value REAL, stderr REAL, n INTEGER) STRICT;
CREATE INDEX evaluations_of_version ON evaluations(model, sha256);
CREATE TABLE drift_states(
  model TEXT NOT NULL, sha256 TEXT NOT NULL, slot TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL,
  PRIMARY KEY(model, sha256, slot), FOREIGN KEY(model, sha256) REFERENCES versions) STRICT;
CREATE TABLE leases(
  model TEXT PRIMARY KEY, fence INTEGER NOT NULL, holder TEXT NOT NULL, taken_at INTEGER NOT NULL) STRICT;
)sql"};

int64_t pragma(const Database& database, const char* name) {
  Statement statement(database, fmt::format("PRAGMA {}", name));
  return statement.step() ? statement.integer(0) : 0;
}

void refuse_network(const fs::path& folder) {
  struct statfs info {};
  if (statfs(folder.c_str(), &info) != 0)
    fail(Exit::io, "{}: cannot open the registry's folder: {}", folder.string(), std::strerror(errno));
  if (const char* name = network_file_system(static_cast<int64_t>(info.f_type)))
    fail(Exit::usage,
         "{}: lies on a network file system ({}): SQLite's log needs shared memory and locks that hold there only on "
         "one machine; choose a folder on a local disk",
         folder.string(), name);
}

void migrate(const Database& database) {
  Transaction transaction(database);
  // Again inside the transaction: another process may have been faster.
  for (int64_t version = pragma(database, "user_version"); version < kTablesVersion; ++version) {
    database.script(kMigrations[static_cast<size_t>(version)]);
    database.script(fmt::format("PRAGMA user_version = {}; PRAGMA application_id = {}", version + 1, kApplication));
  }
  transaction.commit();
}

}  // namespace

const int64_t kTablesVersion = static_cast<int64_t>(kMigrations.size());

const char* network_file_system(int64_t type) {
  switch (static_cast<uint32_t>(type)) {
    case NFS_SUPER_MAGIC:
      return "NFS";
    case SMB_SUPER_MAGIC:
      return "SMB";
    case CIFS_SUPER_MAGIC:
      return "CIFS";
    case SMB2_SUPER_MAGIC:
      return "SMB2";
    case V9FS_MAGIC:
      return "9p";
    case FUSE_SUPER_MAGIC:
      return "FUSE, as sshfs and object stores are mounted";
    case AFS_SUPER_MAGIC:
    case AFS_FS_MAGIC:
      return "AFS";
    case CEPH_SUPER_MAGIC:
      return "CephFS";
    case CODA_SUPER_MAGIC:
      return "Coda";
    case NCP_SUPER_MAGIC:
      return "NCP";
    case 0x0BD00BD0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x19830326:
      return "BeeGFS";
    default:
      return nullptr;
  }
}

std::unique_ptr<Database> open_tables(const fs::path& folder, bool read_only) {
  const fs::path file = folder / "registry.sqlite";
  if (read_only && !fs::exists(file)) fail(Exit::io, "{}: there is no registry in this folder", folder.string());
  if (!read_only) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(Exit::io, "{}: cannot create the registry's folder: {}", folder.string(), error.message());
  }
  refuse_network(folder);
  auto database = std::make_unique<Database>(file, read_only);
  const int64_t version = pragma(*database, "user_version");
  if (version > kTablesVersion)
    fail(Exit::bad_input, "{}: its tables are of version {}, this program knows {}: use a newer retort", file.string(),
         version, kTablesVersion);
  const int64_t application = pragma(*database, "application_id");
  if (application != kApplication && (version != 0 || application != 0 || pragma(*database, "page_count") > 1))
    fail(Exit::bad_input, "{}: is a database, but not a registry", file.string());
  // WAL: readers never wait. FULL: a commit is on the disk when it returns.
  if (!read_only) database->script("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  if (version < kTablesVersion) {
    if (read_only)
      fail(Exit::bad_input, "{}: its tables are of version {}, this program's of {}; open it once for writing",
           file.string(), version, kTablesVersion);
    migrate(*database);
  }
  Statement check(*database, "PRAGMA quick_check(1)");
  std::string found = check.step() ? check.text(0) : "nothing";
  std::replace(found.begin(), found.end(), '\n', ' ');
  if (found != "ok")
    fail(Exit::bad_input, "{}: the registry is damaged: {}; restore it from a back-up (docs/registry.md)",
         file.string(), found.substr(0, 200));
  return database;
}

}  // namespace retort
