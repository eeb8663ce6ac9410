#include "monitor/measure_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace retort {
namespace {

Json to_json(const RowMeasure& measure) {
  Json counts = Json::object();
  for (const auto& [name, entries] : measure.counts) {
    counts[name] = Json::array();
    for (const auto& [bucket, count] : entries) counts[name].push_back({bucket, count});
  }
  return {{"numbers", measure.numbers}, {"counts", counts}, {"features", measure.features}};
}

RowMeasure measure_from(const Json& json) {
  RowMeasure measure;
  measure.numbers = json.at("numbers").get<std::map<std::string, double>>();
  for (const auto& [name, entries] : json.at("counts").items()) {
    for (const Json& entry : entries) {
      const auto bucket = entry.at(0).get<int32_t>();
      if (bucket < 0 || bucket >= TokenHash::kBuckets) fail(Exit::bad_input, "bucket {}", bucket);
      measure.counts[name].emplace_back(bucket, entry.at(1).get<int64_t>());
    }
  }
  measure.features = json.at("features").get<std::map<std::string, std::vector<int32_t>>>();
  for (const auto& [name, values] : measure.features) {
    if (values.size() != 2 * kFrequencies) fail(Exit::bad_input, "{} features", values.size());
  }
  return measure;
}

/// Each whole line as row and JSON, in the file's order.
template <typename Take>
void for_lines(const std::filesystem::path& path, const Take& take) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    if (space != std::string::npos) take(line.substr(0, space), line.substr(space + 1));
  }
}

}  // namespace

MeasureCache::MeasureCache(std::filesystem::path path, std::string key) : path_(std::move(path)), key_(std::move(key)) {
  for_lines(path_, [&](std::string row, std::string json) { lines_[std::move(row)] = std::move(json); });
}

std::string MeasureCache::row_key(const TrafficRow& row) const {
  auto field = [](const std::optional<std::string>& text) {
    return text ? fmt::format("{}:{}", text->size(), *text) : std::string("-");
  };
  return keyed_hash(key_, fmt::format("row {} {} {}", field(row.text), field(row.answer), field(row.label)));
}

std::optional<RowMeasure> MeasureCache::find(const std::string& row_key) {
  const auto line = lines_.find(row_key);
  if (line == lines_.end()) return std::nullopt;
  try {
    RowMeasure measure = measure_from(Json::parse(line->second));
    used_.insert(row_key);
    return measure;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void MeasureCache::add(const std::string& row_key, const RowMeasure& measure) {
  const std::string json = to_json(measure).dump();
  pending_ += row_key + " " + json + "\n";
  lines_[row_key] = json;
  used_.insert(row_key);
}

void MeasureCache::flush() {
  if (pending_.empty()) return;
  const std::string lines = "\n" + pending_;  // begins a new line, in case the last one was broken off
  pending_.clear();
  std::filesystem::create_directories(path_.parent_path());
  const FileLock lock(path_.string() + ".lock");
  const int file = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) fail(Exit::io, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  for (size_t done = 0; done < lines.size();) {
    const ssize_t n = write(file, lines.data() + done, lines.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      close(file);
      fail(Exit::io, "{}: cannot be written: {}", path_.string(), std::strerror(error));
    }
    done += static_cast<size_t>(n);
  }
  close(file);
}

void MeasureCache::prune(uint64_t most) {
  uint64_t unused = 0;
  for (const auto& [row, json] : lines_) unused += used_.contains(row) ? 0 : row.size() + json.size() + 2;
  if (unused <= most) return;
  const FileLock lock(path_.string() + ".lock");
  std::vector<std::pair<std::string, std::string>> lines;  // read again: others may have added some
  for_lines(path_, [&](std::string row, std::string json) { lines.emplace_back(std::move(row), std::move(json)); });
  uint64_t others = 0;
  std::vector<std::string> kept;
  std::unordered_set<std::string> seen;
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    const auto& [row, json] = *line;
    if (!seen.insert(row).second) continue;
    const uint64_t bytes = row.size() + json.size() + 2;
    if (!used_.contains(row)) {
      others += bytes;
      if (others > most / 2) continue;
    }
    kept.push_back(row + " " + json + "\n");
  }
  AtomicFile file(path_);
  std::filesystem::permissions(file.temporary(),
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  for (auto line = kept.rbegin(); line != kept.rend(); ++line) file.write(*line);
  file.commit();
}

}  // namespace retort
