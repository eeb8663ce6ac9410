// SQLite, as far as the registry needs it: statements that throw, transactions that roll back by themselves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

struct sqlite3;
struct sqlite3_stmt;

namespace retort {

class Database;

/// A statement with its values bound; step() gives one row after another.
class Statement {
 public:
  Statement(const Database& database, const std::string& sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  /// The next of the values, from the left.
  Statement& bind(int64_t value);
  Statement& bind(const std::string& value);
  Statement& bind(double value);
  Statement& bind(std::nullptr_t);

  /// Whether there is a (further) row.
  bool step();
  bool is_null(int column) const;
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;

 private:
  const Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

/// Every error is an Error that names the file: bad_input (damaged, not a database), io (disk full, not writable),
/// retry (another process held it for longer than ten seconds), internal (a constraint).
class Database {
 public:
  /// The file is created when it is missing, unless `read_only`.
  Database(std::filesystem::path path, bool read_only);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Runs one statement with its values and drops what it returns.
  template <typename... V>
  void run(const std::string& sql, const V&... values) const {
    Statement statement(*this, sql);
    (statement.bind(values), ...);
    while (statement.step()) {
    }
  }
  /// Several statements without values.
  void script(const std::string& sql) const;
  int64_t last_row() const;

  const std::filesystem::path& path() const { return path_; }

 private:
  friend class Statement;
  [[noreturn]] void refuse(int code) const;
  std::filesystem::path path_;
  sqlite3* handle_ = nullptr;
};

/// BEGIN IMMEDIATE; rolled back unless commit() was called.
class Transaction {
 public:
  explicit Transaction(const Database& database) : database_(database) { database_.run("BEGIN IMMEDIATE"); }
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  const Database& database_;
  bool open_ = true;
};

}  // namespace retort
