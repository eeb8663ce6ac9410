// One file of a cache: documents by the hash of their token ids, entropy-coded, each readable by itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "data/hdf5.h"
#include "distill/cache_rows.h"
#include "distill/documents.h"
#include "distill/symbol_coder.h"

namespace retort {

/// The sizes that a shard's bytes are read with; every shard of a cache has the same.
struct ShardLayout {
  int64_t vocab = 0, masses = 0, samples = 0;  ///< masses: temperatures x cells
  bool full = false;
};

/// What is known of a shard without decoding it.
struct ShardStatistics {
  int64_t documents = 0, positions = 0, stored_tokens = 0;
  double tail_mass = 0;   ///< mean mass outside the stored tokens at temperature 1
  double label_nats = 0;  ///< mean negative log-probability of the labels: the teacher's cross entropy
  /// Mean KL of the teacher from what the bytes say, both on the stored tokens and the cells, at the first of the
  /// cache's temperatures: what rounding loses.
  double coding_nats = 0;
  /// Mean entropy of the teacher inside the cells at temperature 1: what the partition does not tell.
  double hidden_nats = 0;
  Json to_json() const;
  static ShardStatistics from_json(const Json& json, const std::string& where);
};

/// The models that a shard's symbols are coded with, fitted to them.
struct ShardCode {
  std::vector<SymbolModel> models;
  std::vector<int32_t> prediction;  ///< of the masses, see cache_shard.cpp
  int id_shift = 0;                 ///< low bits of an id that are stored as they are
};

/// Collects documents in memory and writes them in finish(), when the code that suits them is known.
class ShardWriter {
 public:
  /// `path`: where to write; the caller renames. `header`: what reader.header() gives back.
  ShardWriter(const std::filesystem::path& path, const ShardLayout& layout, const Json& header);
  void add(std::span<const int32_t> ids, CacheRows rows);
  int64_t positions() const { return statistics_.positions; }
  int64_t documents() const { return statistics_.documents; }
  /// Writes, seals; Error(io) when that fails.
  ShardStatistics finish();

 private:
  struct Document {
    std::vector<int32_t> labels;  // of its positions
    CacheRows rows;
  };
  ShardLayout layout_;
  Hdf5File file_;
  ShardStatistics statistics_;
  std::vector<int64_t> keys_;
  std::vector<int32_t> positions_;
  std::vector<Document> documents_;
};

class ShardReader {
 public:
  struct Entry {
    DocumentKey key;
    int64_t first_byte = 0, first_row = 0;
    int32_t bytes = 0, positions = 0;
  };

  /// Error(bad_input) naming the file when it is damaged or no shard. `verify` as of Hdf5File::open.
  ShardReader(const std::filesystem::path& path, bool verify);
  const Json& header() const { return header_; }
  const ShardStatistics& statistics() const { return statistics_; }
  std::vector<Entry> entries() const;
  /// The document with these ids; `layout` is the cache's.
  CacheRows read(const Entry& entry, std::span<const int32_t> ids, const ShardLayout& layout) const;

 private:
  std::string path_;
  Hdf5File file_;
  Json header_;
  ShardStatistics statistics_;
  ShardCode code_;
};

}  // namespace retort
