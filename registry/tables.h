// The registry's tables, their versions, and where they may lie.
#pragma once

#include <filesystem>
#include <memory>

#include "registry/database.h"

namespace retort {

/// The newest version of the tables that this program knows.
extern const int64_t kTablesVersion;

/// A network file system's name for statfs's f_type, or nullptr: there, locks and shared memory do not hold between
/// machines, and SQLite's log needs both (sqlite.org/wal.html).
const char* network_file_system(int64_t type);

/// Opens `folder`/registry.sqlite and brings its tables up to date. Errors: usage (network file system), io (missing or
/// not writable), bad_input (damaged, another program's, or newer than this program).
std::unique_ptr<Database> open_tables(const std::filesystem::path& folder, bool read_only);

}  // namespace retort
