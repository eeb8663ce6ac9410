#include "distill/cache_folder.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "core/hash.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr const char* manifest_format = "retort-logit-cache-2";
constexpr const char* cells_format = "retort-cells-1";

/// The path of the first key in which two values differ: "options.top_k"; empty when they are equal.
std::string first_difference(const Json& a, const Json& b) {
  if (a == b) return "";
  if (!a.is_object() || !b.is_object()) return "?";
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key)) return key;
    if (const std::string inner = first_difference(value, b[key]); !inner.empty())
      return inner == "?" ? key : key + "." + inner;
  }
  return "?";
}

Json at_path(Json value, std::string path) {
  for (size_t dot; !path.empty(); path.erase(0, dot == std::string::npos ? dot : dot + 1)) {
    dot = path.find('.');
    const std::string key = path.substr(0, dot);
    value = value.contains(key) ? Json(value[key]) : Json();
  }
  return value;
}

}  // namespace

Json CacheHeader::to_json() const {
  return {{"teacher",
           {{"hash", subject.teacher.hash},
            {"quantization", subject.teacher.quantization},
            {"tokenizer", subject.teacher.tokenizer_hash},
            {"vocabulary", subject.teacher.vocab},
            {"engine", subject.teacher.engine}}},
          {"tokenizer", subject.tokenizer_hash},
          {"template", subject.template_hash},
          {"vocabulary", subject.vocab},
          {"options",
           {{"top_k", options.top_k},
            {"min_probability", options.min_probability},
            {"tail_clusters", options.tail_clusters},
            {"temperatures", options.temperatures},
            {"tail_samples", options.tail_samples},
            {"full", options.full},
            {"seed", options.seed}}},
          {"cells", {{"count", cells}, {"hash", cells_hash}}}};
}

CacheHeader CacheHeader::from_json(const Json& json, const std::string& where) {
  const auto object = [&](const char* key) { return json_get<Json>(json, key, where); };
  CacheHeader header;
  const Json teacher = object("teacher"), options = object("options"), cells = object("cells");
  header.subject.teacher = {
      json_get<std::string>(teacher, "hash", where), json_get<std::string>(teacher, "quantization", where),
      json_get<std::string>(teacher, "tokenizer", where), json_get<std::string>(teacher, "engine", where),
      json_get<int64_t>(teacher, "vocabulary", where)};
  header.subject.tokenizer_hash = json_get<std::string>(json, "tokenizer", where);
  header.subject.template_hash = json_get<std::string>(json, "template", where);
  header.subject.vocab = json_get<int64_t>(json, "vocabulary", where);
  header.options = {.top_k = json_get<int64_t>(options, "top_k", where),
                    .min_probability = json_get<double>(options, "min_probability", where),
                    .tail_clusters = json_get<int64_t>(options, "tail_clusters", where),
                    .temperatures = json_get<std::vector<double>>(options, "temperatures", where),
                    .tail_samples = json_get<int64_t>(options, "tail_samples", where),
                    .full = json_get<bool>(options, "full", where),
                    .seed = json_get<int64_t>(options, "seed", where)};
  header.cells = json_get<int64_t>(cells, "count", where);
  header.cells_hash = json_get<std::string>(cells, "hash", where);
  try {
    check_options(header.options);
  } catch (const Error& error) {
    fail(Exit::bad_input, "{}: {}", where, error.what());
  }
  constexpr int64_t most_tokens = int64_t{1} << 22;
  if (header.subject.vocab < 1 || header.subject.vocab > most_tokens || header.cells < 1 || header.cells > 255)
    fail(Exit::bad_input, "{}: a vocabulary of {} and {} cells", where, header.subject.vocab, header.cells);
  return header;
}

ShardLayout CacheHeader::layout() const {
  return {subject.vocab, static_cast<int64_t>(options.temperatures.size()) * cells, options.tail_samples, options.full};
}

std::string CacheHeader::key() const { return sha256_hex(manifest_format + to_json().dump()).substr(0, 16); }

fs::path manifest_path(const fs::path& folder, CacheShare share) {
  return folder / fmt::format("manifest-{}-of-{}.json", share.index, share.count);
}

fs::path cells_path(const fs::path& folder) { return folder / "cells.h5"; }

CacheManifest read_manifest(const fs::path& path) {
  const std::string where = path.string();
  const Json json = read_json(path);
  if (const auto format = json_get<std::string>(json, "format", where); format != manifest_format)
    fail(Exit::bad_input,
         "{}: the cache's format is \"{}\", expected \"{}\"; fill another folder with retort cache-teacher", where,
         format, manifest_format);
  CacheManifest manifest{CacheHeader::from_json(json_get<Json>(json, "cache", where), where), {}};
  for (const Json& shard : json_get<Json>(json, "shards", where)) {
    manifest.shards.push_back({json_get<std::string>(shard, "file", where), json_get<std::string>(shard, "seal", where),
                               ShardStatistics::from_json(json_get<Json>(shard, "statistics", where), where),
                               json_get<uint64_t>(shard, "bytes", where)});
    if (fs::path(manifest.shards.back().file).filename() != manifest.shards.back().file)
      fail(Exit::bad_input, "{}: the shard \"{}\" is not in the cache's folder", where, manifest.shards.back().file);
  }
  return manifest;
}

void write_manifest(const fs::path& path, const CacheManifest& manifest) {
  Json shards = Json::array();
  for (const ListedShard& s : manifest.shards)
    shards.push_back({{"file", s.file}, {"seal", s.seal}, {"bytes", s.bytes}, {"statistics", s.statistics.to_json()}});
  write_json(path, {{"format", manifest_format}, {"cache", manifest.header.to_json()}, {"shards", std::move(shards)}});
}

std::vector<fs::path> manifests_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("manifest-") && name.ends_with(".json")) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

CacheManifest merged_manifest(const fs::path& folder) {
  const std::vector<fs::path> paths = manifests_of(folder);
  if (paths.empty())
    fail(Exit::bad_input,
         "{}: no cache of a teacher's logits is there (no manifest-*.json); make it with "
         "retort cache-teacher",
         folder.string());
  CacheManifest merged = read_manifest(paths[0]);
  for (size_t i = 1; i < paths.size(); ++i) {
    CacheManifest other = read_manifest(paths[i]);
    expect_equal(merged.header, paths[0].string(), other.header, paths[i].string());
    merged.shards.insert(merged.shards.end(), other.shards.begin(), other.shards.end());
  }
  return merged;
}

void expect_equal(const CacheHeader& expected, const std::string& of, const CacheHeader& found,
                  const std::string& where) {
  const Json a = expected.to_json(), b = found.to_json();
  const std::string key = first_difference(a, b);
  if (key.empty()) return;
  fail(Exit::bad_input, "{}: holds another cache than {}: {} is {} there, {} here; give it a folder of its own", where,
       of, key, at_path(a, key).dump(), at_path(b, key).dump());
}

ShardReader open_shard(const fs::path& folder, const ListedShard& shard, bool verify) {
  const fs::path path = folder / shard.file;
  if (!fs::exists(path))
    fail(Exit::bad_input, "{}: the manifest lists this shard, but it is missing; retort cache-teacher makes it again",
         path.string());
  if (const std::string seal = Hdf5File::seal_of(path); seal != shard.seal)
    fail(Exit::bad_input, "{}: the shard is not the one that the manifest lists (\"{}\" instead of \"{}\")",
         path.string(), seal, shard.seal);
  return ShardReader(path, verify);
}

void write_cells(const fs::path& path, const Cells& cells) {
  AtomicFile file(path);
  Hdf5File out = Hdf5File::create(file.temporary());
  const at::Tensor of = cells.of.contiguous();
  out.create_array<uint8_t>("cell_of", 1, of.numel());
  out.append<uint8_t>("cell_of", {of.const_data_ptr<uint8_t>(), size_t(of.numel())});
  out.write_attribute("format", cells_format);
  out.write_attribute("count", std::to_string(cells.count));
  out.seal();
  file.commit();
}

Cells read_cells(const fs::path& path) {
  const Hdf5File file = Hdf5File::open(path);
  if (const std::string format = file.attribute("format"); format != cells_format)
    fail(Exit::bad_input, "{}: the file's format is \"{}\", expected \"{}\"", path.string(), format, cells_format);
  const int64_t rows = file.rows("cell_of");
  file.expect_array<uint8_t>("cell_of", rows, 1);
  Cells cells{at::empty({rows}, at::kByte), std::atoll(file.attribute("count").c_str())};
  file.read<uint8_t>("cell_of", 0, {cells.of.mutable_data_ptr<uint8_t>(), size_t(rows)});
  if (rows < 1 || cells.count < 1 || cells.count > 255 || cells.of.max().item<int64_t>() >= cells.count)
    fail(Exit::bad_input, "{}: {} tokens in {} cells", path.string(), rows, cells.count);
  return cells;
}

}  // namespace retort
