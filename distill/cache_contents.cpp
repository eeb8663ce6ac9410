#include "core/error.h"
#include "data/hdf5_contents.h"
#include "distill/cache_folder.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

/// Means over positions, for people.
Json figures(const ShardStatistics& sum, uint64_t bytes) {
  const auto n = static_cast<double>(std::max<int64_t>(1, sum.positions));
  return {{"documents", sum.documents},
          {"positions", sum.positions},
          {"bytes_per_position", static_cast<double>(bytes) / n},
          {"stored_tokens_per_position", static_cast<double>(sum.stored_tokens) / n},
          {"tail_mass", sum.tail_mass},
          {"teacher_cross_entropy_nats", sum.label_nats},
          {"coding_nats", sum.coding_nats},
          {"hidden_nats", sum.hidden_nats}};
}

bool is_shard(const fs::path& path) {
  try {
    return Hdf5File::open(path, false).attribute("format").starts_with("retort-logits-");
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

bool is_cache(const fs::path& path) {
  return fs::is_directory(path) ? !manifests_of(path).empty() : fs::is_regular_file(path) && is_shard(path);
}

Json describe_cache(const fs::path& path, bool verify) {
  if (!fs::is_directory(path)) {
    const ShardReader shard(path, true);
    Json json = CacheHeader::from_json(shard.header(), path.string()).to_json();
    json.update(figures(shard.statistics(), fs::file_size(path)));
    Json arrays = Json::array();
    for (const Hdf5Array& a : hdf5_contents(path).arrays)
      arrays.push_back({{"name", a.name}, {"type", a.type}, {"shape", a.shape}, {"bytes", a.stored_bytes}});
    json["parts"] = std::move(arrays);
    return json;
  }
  const CacheManifest manifest = merged_manifest(path);
  const Cells cells = read_cells(cells_path(path));
  Json json = manifest.header.to_json(), parts = Json::array();
  parts.push_back({{"name", "cells.h5"},
                   {"type", "cells"},
                   {"shape", Json::array({cells.of.size(0)})},
                   {"bytes", fs::file_size(cells_path(path))}});
  ShardStatistics sum;
  uint64_t bytes = 0;
  for (const ListedShard& listed : manifest.shards) {
    const ShardStatistics one = verify ? open_shard(path, listed, true).statistics() : listed.statistics;
    const auto positions = static_cast<double>(one.positions);
    sum.documents += one.documents;
    sum.positions += one.positions;
    sum.stored_tokens += one.stored_tokens;
    sum.tail_mass += one.tail_mass * positions;
    sum.label_nats += one.label_nats * positions;
    sum.coding_nats += one.coding_nats * positions;
    sum.hidden_nats += one.hidden_nats * positions;
    bytes += fs::file_size(path / listed.file);
    parts.push_back({{"name", listed.file},
                     {"type", "logits"},
                     {"shape", Json::array({one.positions})},
                     {"bytes", fs::file_size(path / listed.file)}});
  }
  const auto n = static_cast<double>(std::max<int64_t>(1, sum.positions));
  sum.tail_mass /= n;
  sum.label_nats /= n;
  sum.coding_nats /= n;
  sum.hidden_nats /= n;
  json.update(figures(sum, bytes));
  json["parts"] = std::move(parts);
  return json;
}

}  // namespace retort
