#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/signals.h"
#include "distill/cache_folder.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr int64_t shard_bytes = 1 << 30;   // of whole distributions, which dwarf the rest
constexpr int64_t group_tokens = 1 << 13;  // handed to the teacher at once, so that it can fill its batches

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// This process's share of a cache: what it holds, and the shard that grows.
class Share {
 public:
  Share(const fs::path& folder, CacheShare share, const Cells& cells, const CacheHeader& header)
      : folder_(folder),
        share_(share),
        lock_(folder / fmt::format("share-{}-of-{}.lock", share.index, share.count), false),
        manifest_{header, {}} {
    {
      // Whoever comes first decides what the cache is.
      const FileLock first(folder / "cache.lock");
      if (!fs::exists(cells_path(folder))) write_cells(cells_path(folder), cells);
      if (!manifests_of(folder).empty())
        expect_equal(merged_manifest(folder).header, folder.string(), header, "this capture");
      if (const fs::path own = manifest_path(folder, share); fs::exists(own)) manifest_ = read_manifest(own);
      // A shard that was taken away is captured again.
      std::erase_if(manifest_.shards, [&](const ListedShard& shard) { return !fs::exists(folder / shard.file); });
      write_manifest(manifest_path(folder, share), manifest_);
    }
    for (const fs::path& path : manifests_of(folder))
      for (const ListedShard& shard : read_manifest(path).shards)
        if (fs::exists(folder / shard.file)) {
          for (const ShardReader::Entry& entry : open_shard(folder, shard, true).entries()) known_.insert(entry.key);
          sound_.insert(shard.seal);
        }
  }

  bool holds(const DocumentKey& key) const { return known_.contains(key); }
  bool owns(const DocumentKey& key) const {
    return key.high % static_cast<uint64_t>(share_.count) == static_cast<uint64_t>(share_.index);
  }
  void take(const DocumentKey& key) { known_.insert(key); }

  void add(std::span<const int32_t> ids, CacheRows rows) {
    if (!writer_) {
      name_ = next_name();
      file_.emplace(folder_ / name_);
      writer_.emplace(file_->temporary(), manifest_.header.layout(), manifest_.header.to_json());
    }
    writer_->add(ids, std::move(rows));
    const int64_t dense = manifest_.header.options.full ? 2 * manifest_.header.subject.vocab * writer_->positions() : 0;
    if (writer_->positions() >= share_.shard_positions || dense >= shard_bytes) finish_shard();
  }

  /// Puts the shard under its name and into the manifest.
  void finish_shard() {
    if (!writer_) return;
    ShardWriter writer = std::move(*writer_);
    writer_.reset();  // so that a shard that failed is not tried again
    const ShardStatistics statistics = writer.finish();
    const std::string seal = Hdf5File::seal_of(file_->temporary());
    file_->commit();
    file_.reset();
    manifest_.shards.push_back({name_, seal, statistics, fs::file_size(folder_ / name_)});
    write_manifest(manifest_path(folder_, share_), manifest_);
    bytes_ += manifest_.shards.back().bytes;
    sound_.insert(seal);
  }
  uint64_t bytes() const { return bytes_; }
  const std::set<std::string>& sound() const { return sound_; }

 private:
  std::string next_name() const {
    for (size_t n = manifest_.shards.size();; ++n) {
      const std::string name = fmt::format("logits-{}-of-{}-{:05}.h5", share_.index, share_.count, n);
      if (std::none_of(manifest_.shards.begin(), manifest_.shards.end(),
                       [&](const ListedShard& shard) { return shard.file == name; }))
        return name;
    }
  }

  fs::path folder_;
  CacheShare share_;
  FileLock lock_;
  CacheManifest manifest_;
  std::set<DocumentKey> known_;
  std::string name_;
  std::optional<AtomicFile> file_;
  std::optional<ShardWriter> writer_;
  uint64_t bytes_ = 0;
  std::set<std::string> sound_;
};

/// Documents that wait for the teacher.
struct Group {
  std::vector<std::vector<int32_t>> documents;
  std::vector<std::vector<int64_t>> wanted;
  int64_t tokens = 0;
};

}  // namespace

void check_options(const CacheOptions& options) {
  const auto check = [](bool good, const char* name, const auto& value, const char* allowed) {
    if (!good) fail(Exit::usage, "{} is {}, allowed are {}", name, value, allowed);
  };
  check(options.top_k >= 1 && options.top_k <= 255, "top_k", options.top_k, "1 to 255");
  check(options.min_probability >= 0 && options.min_probability <= 1, "min_probability", options.min_probability,
        "0 to 1");
  check(options.tail_clusters >= 1 && options.tail_clusters <= 255, "tail_clusters", options.tail_clusters, "1 to 255");
  check(options.tail_samples >= 0 && options.tail_samples <= 255, "tail_samples", options.tail_samples, "0 to 255");
  check(!options.temperatures.empty() && options.temperatures.size() <= 8, "the number of temperatures",
        options.temperatures.size(), "1 to 8");
  for (double temperature : options.temperatures)
    check(temperature >= 0.25 && temperature <= 100, "a temperature", temperature, "0.25 to 100");
}

CaptureReport capture(Teacher& teacher, const PackedDataset& data, const Cells& cells, const CacheSubject& subject,
                      const CacheOptions& options, const fs::path& folder, CacheShare share_of, Progress progress) {
  check_options(options);
  if (share_of.count < 1 || share_of.index < 0 || share_of.index >= share_of.count)
    fail(Exit::usage, "share {} of {}: allowed are 0/n to (n - 1)/n", share_of.index, share_of.count);
  if (cells.of.size(0) != subject.vocab)
    fail(Exit::bad_input, "{}: cells of {} tokens for a vocabulary of {}; give the cache a folder of its own",
         cells_path(folder).string(), cells.of.size(0), subject.vocab);
  const auto start = std::chrono::steady_clock::now();
  CaptureReport report;
  Share share(folder, share_of, cells, {subject, options, cells.count, cells.hash()});
  const RowMaker maker(cells, options);
  progress.start("teacher", static_cast<uint64_t>(data.windows()));

  Group group;
  const auto ask = [&](int64_t window) {
    double own_seconds = 0;
    const auto asked = std::chrono::steady_clock::now();
    teacher.logits(group.documents, group.wanted, [&](size_t d, const at::Tensor& logits) {
      const auto begun = std::chrono::steady_clock::now();
      const DocumentKey key = document_key(group.documents[d]);
      CacheRows rows =
          maker.rows(logits, group.documents[d], group.wanted[d], static_cast<uint64_t>(options.seed) ^ key.low);
      ++report.documents;
      report.positions += rows.size();
      share.add(group.documents[d], std::move(rows));
      own_seconds += seconds_since(begun);
      if (stop_signal())
        fail(Exit::retry, "stopped by a signal after {} documents, which are kept in {}; the same command goes on",
             report.documents, folder.string());
    });
    report.teacher_seconds += seconds_since(asked) - own_seconds;
    report.teacher_tokens += group.tokens;
    progress.update(static_cast<uint64_t>(window + 1),
                    fmt::format("{:.0f} tokens/s", double(report.teacher_tokens) / seconds_since(start)));
    group = {};
  };
  try {
    for (int64_t window = 0; window < data.windows(); ++window) {
      for_documents(data.batch(std::vector<int64_t>{window}), [&](const BatchDocument& document) {
        const auto& [ids, trained, offset] = document;
        const DocumentKey key = document_key(ids);
        if (trained.empty() || !share.owns(key)) return;
        if (share.holds(key)) {
          ++report.documents_before;
          return;
        }
        share.take(key);  // the data may hold it twice
        group.tokens += static_cast<int64_t>(ids.size());
        group.documents.emplace_back(ids.begin(), ids.end());
        group.wanted.emplace_back(trained.begin(), trained.end());
      });
      if (group.tokens >= group_tokens) ask(window);
    }
    if (group.tokens > 0) ask(data.windows() - 1);
  } catch (...) {
    // What is finished stays; whatever else goes wrong here (the disk is full) is not the first thing that did.
    const std::exception_ptr cause = std::current_exception();
    try {
      share.finish_shard();
    } catch (const Error&) {
    }
    std::rethrow_exception(cause);
  }
  share.finish_shard();
  report.bytes = share.bytes();
  report.sound = share.sound();
  report.seconds = seconds_since(start);
  progress.finish();
  return report;
}

std::optional<Cells> cells_of_cache(const fs::path& folder) {
  if (!fs::exists(cells_path(folder))) return std::nullopt;
  return read_cells(cells_path(folder));
}

}  // namespace retort
