#include "registry/database.h"

#include <sqlite3.h>
#include <unistd.h>

#include "core/error.h"

namespace retort {
namespace fs = std::filesystem;

Statement::Statement(const Database& database, const std::string& sql) : database_(database) {
  const int code = sqlite3_prepare_v2(database.handle_, sql.c_str(), -1, &statement_, nullptr);
  if (code != SQLITE_OK) database.refuse(code);
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(int64_t value) {
  sqlite3_bind_int64(statement_, ++bound_, value);
  return *this;
}
Statement& Statement::bind(double value) {
  sqlite3_bind_double(statement_, ++bound_, value);
  return *this;
}
Statement& Statement::bind(const std::string& value) {
  sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}
Statement& Statement::bind(std::nullptr_t) {
  sqlite3_bind_null(statement_, ++bound_);
  return *this;
}

bool Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) database_.refuse(code);
  return false;
}

bool Statement::is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_, column); }
double Statement::real(int column) const { return sqlite3_column_double(statement_, column); }
std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text ? std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column))) : std::string();
}

Database::Database(fs::path path, bool read_only) : path_(std::move(path)) {
  // A read-only folder has no place for the log's index. Without a log that still has to be read there is nothing to
  // index, and "immutable" reads the file alone.
  std::error_code none;
  const auto log = fs::file_size(path_.string() + "-wal", none);
  const bool alone = read_only && access(fs::absolute(path_).parent_path().c_str(), W_OK) != 0 && (none || log == 0);
  std::string name = path_.string();
  if (alone) {
    std::string escaped;
    for (const char c : fs::absolute(path_).string())
      escaped +=
          c == '?' || c == '#' || c == '%' ? fmt::format("%{:02x}", static_cast<unsigned char>(c)) : std::string(1, c);
    name = "file://" + escaped + "?immutable=1";
  }
  const int flags = read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  const int code = sqlite3_open_v2(name.c_str(), &handle_, flags | (alone ? SQLITE_OPEN_URI : 0), nullptr);
  try {
    if (code != SQLITE_OK) refuse(code);
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_timeout(handle_, 10'000);
    script("PRAGMA foreign_keys = ON");
  } catch (...) {
    sqlite3_close_v2(handle_);
    throw;
  }
}

Database::~Database() { sqlite3_close_v2(handle_); }

void Database::refuse(int code) const {
  const std::string message = handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      fail(Exit::bad_input, "{}: the registry is damaged: {}; restore it from a back-up (docs/registry.md)",
           path_.string(), message);
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      fail(Exit::io, "{}: cannot read or write the registry: {}", path_.string(), message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      fail(Exit::retry, "{}: another process is writing; try again later", path_.string());
    default:
      fail(Exit::internal, "{}: {}", path_.string(), message);
  }
}

void Database::script(const std::string& sql) const {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) refuse(code);
}

int64_t Database::last_row() const { return sqlite3_last_insert_rowid(handle_); }

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.run("ROLLBACK");
  } catch (const Error&) {
    // SQLite has rolled back already, as it does when the disk is full.
  }
}

void Transaction::commit() {
  database_.run("COMMIT");
  open_ = false;
}

}  // namespace retort
