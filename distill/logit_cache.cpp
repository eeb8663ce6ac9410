#include "distill/logit_cache.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <list>
#include <mutex>

#include "core/error.h"
#include "distill/cache_folder.h"

namespace retort {
namespace fs = std::filesystem;
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr size_t open_shards = 16;

const std::vector<std::pair<const char*, Estimator>> estimators = {{"clustered", Estimator::clustered},
                                                                   {"ghost", Estimator::ghost},
                                                                   {"zero", Estimator::zero},
                                                                   {"sampled", Estimator::sampled},
                                                                   {"full", Estimator::full}};

/// One trained position of a batch: where its document's bytes are.
struct Place {
  const CacheRows* rows;
  int64_t row, first_id;
};

/// A batch's documents, decoded, and its trained positions in their order.
struct Decoded {
  std::vector<CacheRows> documents;
  std::vector<Place> places;
  int64_t widest = 0;  // tokens stored of one position
};

std::string first_tokens(std::span<const int32_t> ids) {
  return fmt::format("[{}{}]", fmt::join(ids.first(std::min<size_t>(8, ids.size())), ", "),
                     ids.size() > 8 ? ", ..." : "");
}

class ShardedCache : public LogitCache {
 public:
  ShardedCache(const fs::path& folder, const CacheSubject& expected, const std::set<std::string>& sound)
      : folder_(folder), manifest_(merged_manifest(folder)), cells_(read_cells(cells_path(folder))) {
    const CacheSubject& found = manifest_.header.subject;
    const auto expect = [&](const char* what, const auto& wanted, const auto& held) {
      if (wanted != held)
        fail(Exit::bad_input,
             "{}: the cache was filled with another {}: {} there, {} in this run; "
             "fill another folder with retort cache-teacher",
             folder.string(), what, held, wanted);
    };
    expect("teacher", expected.teacher.hash, found.teacher.hash);
    expect("quantization of the teacher", expected.teacher.quantization, found.teacher.quantization);
    expect("engine of the teacher", expected.teacher.engine, found.teacher.engine);
    expect("teacher's tokenizer", expected.teacher.tokenizer_hash, found.teacher.tokenizer_hash);
    expect("tokenizer", expected.tokenizer_hash, found.tokenizer_hash);
    expect("chat template", expected.template_hash, found.template_hash);
    expect("size of vocabulary", expected.vocab, found.vocab);
    // Their number is no part of the hash.
    if (cells_.hash() != manifest_.header.cells_hash || cells_.of.size(0) != found.vocab ||
        cells_.count != manifest_.header.cells)
      fail(Exit::bad_input,
           "{}: the cells are not the ones that the cache was filled with ({} cells of {} tokens with SHA-256 {} "
           "instead "
           "of {} of {} with {})",
           cells_path(folder).string(), cells_.count, cells_.of.size(0), cells_.hash(), manifest_.header.cells,
           found.vocab, manifest_.header.cells_hash);
    for (uint32_t s = 0; s < manifest_.shards.size(); ++s) {
      const ListedShard& listed = manifest_.shards[s];
      const ShardReader shard = open_shard(folder, listed, !sound.contains(listed.seal));
      if (shard.header() != manifest_.header.to_json())
        fail(Exit::bad_input, "{}: the shard belongs to another cache than its manifest",
             (folder / listed.file).string());
      for (const ShardReader::Entry& entry : shard.entries()) {
        index_.push_back({entry, s});
        positions_ += entry.positions;
      }
    }
    std::sort(index_.begin(), index_.end(),
              [](const Indexed& a, const Indexed& b) { return a.entry.key < b.entry.key; });
  }

  const CacheSubject& subject() const override { return manifest_.header.subject; }
  const CacheOptions& options() const override { return manifest_.header.options; }
  const Cells& cells() const override { return cells_; }
  int64_t documents() const override { return static_cast<int64_t>(index_.size()); }
  int64_t positions() const override { return positions_; }

  TeacherTargets targets(const Batch& batch, double temperature, Estimator estimator) const override {
    if (const std::string why = cannot_estimate(options(), temperature, estimator); !why.empty())
      fail(Exit::bad_input, "{}: {}, and fill another folder with retort cache-teacher", folder_.string(), why);
    const auto decoded = std::make_shared<Decoded>(decode(batch, estimator == Estimator::full));
    TeacherTargets targets{static_cast<int64_t>(decoded->places.size())};
    if (estimator == Estimator::full)
      targets.dense = [decoded](int64_t begin, int64_t end) {
        std::vector<at::Tensor> rows;
        for (int64_t r = begin; r < end; ++r)
          rows.push_back(decoded->places[r].rows->full.select(0, decoded->places[r].row));
        return at::stack(rows).to(at::kFloat);
      };
    else
      targets.partition = partition(*decoded, temperature, estimator);
    return targets;
  }

  void expect_all(const PackedDataset& data) const override {
    int64_t missing = 0;
    std::string first;
    for (int64_t window = 0; window < data.windows(); ++window) {
      const Batch batch = data.batch(std::vector<int64_t>{window});
      for_documents(batch, [&](const BatchDocument& document) {
        if (document.trained.empty() || find(document.ids)) return;
        if (missing++ == 0) first = first_tokens(document.ids);
      });
    }
    if (missing > 0)
      fail(Exit::bad_input,
           "{}: {} documents of the data are not in the cache, the first begins with the tokens {}; "
           "run retort cache-teacher",
           folder_.string(), missing, first);
  }

 private:
  struct Indexed {
    ShardReader::Entry entry;
    uint32_t shard;
  };

  const Indexed* find(std::span<const int32_t> ids) const {
    const DocumentKey key = document_key(ids);
    const auto found = std::lower_bound(index_.begin(), index_.end(), key,
                                        [](const Indexed& a, const DocumentKey& b) { return a.entry.key < b; });
    return found != index_.end() && found->entry.key == key ? &*found : nullptr;
  }

  /// Keeps the shards used last open.
  std::shared_ptr<ShardReader> shard(uint32_t s) const {
    const std::lock_guard lock(mutex_);
    auto open = std::find_if(open_.begin(), open_.end(), [&](const auto& one) { return one.first == s; });
    if (open == open_.end()) {
      if (open_.size() == open_shards) open_.pop_back();
      open_.emplace_front(s, std::make_shared<ShardReader>(open_shard(folder_, manifest_.shards[s], false)));
      return open_.front().second;
    }
    open_.splice(open_.begin(), open_, open);
    return open_.front().second;
  }

  Decoded decode(const Batch& batch, bool full) const {
    struct Wanted {
      const Indexed* found;
      std::vector<int32_t> ids;
      std::vector<int64_t> positions;
    };
    std::vector<Wanted> all;
    for_documents(batch, [&](const BatchDocument& document) {
      const auto& [ids, trained, offset] = document;
      if (trained.empty()) return;
      const Indexed* found = find(ids);
      if (!found)
        fail(
            Exit::bad_input,
            "{}: the document of {} tokens that begins with {} is not in the cache; run retort cache-teacher with this "
            "data",
            folder_.string(), ids.size(), first_tokens(ids));
      all.push_back({found, {ids.begin(), ids.end()}, {trained.begin(), trained.end()}});
    });
    Decoded decoded;
    decoded.documents.resize(all.size());
    ShardLayout layout = manifest_.header.layout();
    layout.full = full;
    at::parallel_for(0, static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t d = begin; d < end; ++d)
        decoded.documents[d] = shard(all[d].found->shard)->read(all[d].found->entry, all[d].ids, layout);
    });
    for (size_t d = 0; d < all.size(); ++d) {
      const CacheRows& rows = decoded.documents[d];
      int64_t row = 0, first_id = 0;
      for (int64_t position : all[d].positions) {
        for (; row < rows.size() && rows.positions[row] < position; ++row) first_id += rows.counts[row];
        if (row == rows.size() || rows.positions[row] != position)
          fail(Exit::bad_input,
               "{}: position {} of the document that begins with {} is trained now, but was not when the cache was "
               "filled; run retort cache-teacher into another folder",
               folder_.string(), position, first_tokens(all[d].ids));
        decoded.places.push_back({&rows, row, first_id});
        decoded.widest = std::max<int64_t>(decoded.widest, rows.counts[row]);
      }
    }
    return decoded;
  }

  Partition partition(const Decoded& decoded, double temperature, Estimator estimator) const {
    const auto n = static_cast<int64_t>(decoded.places.size());
    const auto& temperatures = options().temperatures;
    const bool masses = estimator != Estimator::zero, sampled = estimator == Estimator::sampled;
    const int64_t cells = cells_.count, samples = sampled ? options().tail_samples : 0, k = decoded.widest + samples;
    const auto first_mass =
        masses ? (std::find(temperatures.begin(), temperatures.end(), temperature) - temperatures.begin()) * cells : 0;
    const int64_t all_masses = static_cast<int64_t>(temperatures.size()) * cells;
    const float step = mass_step(temperature), top = mass_top(temperature, subject().vocab);
    const int64_t kept = estimator == Estimator::clustered ? cells : 1;
    const auto scale = static_cast<float>(1 / temperature);
    Partition result{at::full({n, k}, -1, at::kInt), at::full({n, k}, minus_infinity),
                     kept == 1 ? at::zeros_like(cells_.of) : cells_.of, at::full({n, kept}, minus_infinity)};
    auto* ids = result.ids.mutable_data_ptr<int32_t>();
    auto *log_p = result.log_p.mutable_data_ptr<float>(), *log_mass = result.log_mass.mutable_data_ptr<float>();
    at::parallel_for(0, n, 64, [&](int64_t begin, int64_t end) {
      std::vector<double> mass(cells);
      for (int64_t r = begin; r < end; ++r) {
        const Place& place = decoded.places[r];
        const int64_t count = place.rows->counts[place.row];
        double sum = 0, tail = 0;
        for (int64_t i = 0; i < count; ++i) {
          ids[r * k + i] = place.rows->ids[place.first_id + i];
          log_p[r * k + i] = -log_p_step * scale * static_cast<float>(place.rows->log_p[place.first_id + i]);
          sum += std::exp(log_p[r * k + i]);
        }
        for (int64_t c = 0; masses && c < cells; ++c) {
          const uint8_t byte = place.rows->masses[place.row * all_masses + first_mass + c];
          mass[c] = byte == no_mass ? 0 : std::exp(static_cast<double>(top - step * static_cast<float>(byte)));
          tail += mass[c];
        }
        // Rounded numbers do not sum to one: all are scaled alike.
        const double total = sum + tail;
        for (int64_t i = 0; i < count; ++i) log_p[r * k + i] -= static_cast<float>(std::log(total));
        if (estimator == Estimator::ghost) log_mass[r] = static_cast<float>(std::log(tail / total));
        if (estimator == Estimator::clustered)
          for (int64_t c = 0; c < cells; ++c) log_mass[r * cells + c] = static_cast<float>(std::log(mass[c] / total));
        if (sampled) add_samples(*place.rows, place, tail / total, ids + r * k, log_p + r * k);
      }
    });
    return result;
  }

  /// Each draw stands for an equal part of the tail's mass; a token that was drawn twice has two of them.
  void add_samples(const CacheRows& rows, const Place& place, double tail, int32_t* ids, float* log_p) const {
    const int64_t samples = options().tail_samples, count = rows.counts[place.row];
    std::map<int32_t, int64_t> draws;
    for (int64_t s = 0; s < samples; ++s) ++draws[rows.samples[place.row * samples + s]];
    int64_t at = count;
    for (const auto& [id, times] : draws) {
      if (std::find(ids, ids + count, id) != ids + count) continue;  // the tail was empty
      ids[at] = id;
      log_p[at++] = static_cast<float>(std::log(tail * double(times) / double(samples)));
    }
  }

  fs::path folder_;
  CacheManifest manifest_;
  Cells cells_;
  std::vector<Indexed> index_;
  int64_t positions_ = 0;
  mutable std::mutex mutex_;
  mutable std::list<std::pair<uint32_t, std::shared_ptr<ShardReader>>> open_;
};

}  // namespace

const char* name_of(Estimator estimator) {
  return std::find_if(estimators.begin(), estimators.end(), [&](const auto& one) { return one.second == estimator; })
      ->first;
}

Estimator estimator_named(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [text, value] : estimators) {
    if (name == text) return value;
    names.push_back(text);
  }
  fail(Exit::usage, "no estimator is called \"{}\"; there are: {}", name, fmt::join(names, ", "));
}

std::string cannot_estimate(const CacheOptions& options, double temperature, Estimator estimator) {
  const auto& held = options.temperatures;
  if (estimator == Estimator::sampled && (options.tail_samples == 0 || temperature != 1))
    return fmt::format(
        "the estimator sampled wants temperature 1 and draws from the tail: here the temperature is {} and "
        "distill.cache.tail_samples is {}; change them",
        temperature, options.tail_samples);
  if (estimator == Estimator::full && !options.full)
    return "the estimator full wants whole distributions: set distill.cache.full: true";
  const bool needs_masses = estimator != Estimator::zero && estimator != Estimator::full;
  if (needs_masses && std::find(held.begin(), held.end(), temperature) == held.end())
    return fmt::format(
        "the estimator {} has no masses at temperature {}, only at {}: use one of those, or add it to "
        "distill.cache.temperatures",
        name_of(estimator), temperature, fmt::join(held, ", "));
  return "";
}

std::shared_ptr<const LogitCache> LogitCache::open(const fs::path& folder, const CacheSubject& expected,
                                                   const std::set<std::string>& sound) {
  return std::make_shared<ShardedCache>(folder, expected, sound);
}

TargetSource cached_targets(std::shared_ptr<const LogitCache> cache, double temperature, Estimator estimator) {
  cache->targets({at::empty({0}, at::kLong), at::empty({0}, at::kLong), {0}}, temperature, estimator);  // it throws now
  return [cache = std::move(cache), temperature, estimator](const Batch& batch, std::span<const int64_t>) {
    return cache->targets(batch, temperature, estimator);
  };
}

}  // namespace retort
