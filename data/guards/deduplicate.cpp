// Exact and near duplicates, within the rows and of earlier ones.
#include <ATen/Parallel.h>

#include <unordered_map>

#include "core/hash.h"
#include "data/guard.h"
#include "data/minhash.h"

namespace retort {
namespace {

struct DeduplicateOptions : GuardOptions {
  bool near = true;
  double threshold = 0.8;
  int64_t words = 5, bands = 18, rows = 6;
  std::vector<DatasetOptions> against;
};

const Schema<DeduplicateOptions>& schema_of(DeduplicateOptions*) {
  using O = DeduplicateOptions;
  static const auto schema =
      guard_schema<O>("deduplicate", "Rows that say what an earlier one said.", false)
          .field("near", &O::near, "look for near duplicates too, not only for exact ones")
          .field("threshold", &O::threshold,
                 "Jaccard similarity of the word shingles from which rows are near duplicates",
                 {.minimum = 0, .maximum = 1, .minimum_open = true})
          .field("words", &O::words, "of a shingle", {.minimum = 1, .maximum = 64})
          .field("bands", &O::bands,
                 "of MinHash: rows of similarity J are compared with probability 1 − (1 − J^rows)^bands",
                 {.minimum = 1, .maximum = 256})
          .field("rows", &O::rows, "hashes in a band", {.minimum = 1, .maximum = 64})
          .field("against", &O::against, "earlier data sets: rows that they have are duplicates too")
          .renamed("jaccard", "threshold")
          .renamed("num_perm", "bands times rows is the number of permutations");
  return schema;
}

/// Where rows stood, in few bytes: the file's name once, then the line.
class Places {
 public:
  int64_t add(const std::string& place) {
    const size_t split = std::min(place.rfind(':'), place.size());
    if (files_.empty() || files_.back().second != std::string_view(place).substr(0, split))
      files_.emplace_back(begins_.size(), place.substr(0, split));
    begins_.push_back(text_.size());
    text_.append(place, split);
    return static_cast<int64_t>(begins_.size()) - 1;
  }
  std::string operator[](int64_t id) const {
    const auto row = static_cast<size_t>(id);
    auto file =
        std::upper_bound(files_.begin(), files_.end(), row, [](size_t r, const auto& f) { return r < f.first; });
    const size_t end = row + 1 < begins_.size() ? begins_[row + 1] : text_.size();
    return std::prev(file)->second + text_.substr(begins_[row], end - begins_[row]);
  }

 private:
  std::vector<std::pair<size_t, std::string>> files_;  ///< the first row of each, and its name
  std::vector<size_t> begins_;
  std::string text_;
};

/// Equal for rows whose messages are the same but for white space: nothing else may differ, for "2+3" and "2-3" do not
/// say the same.
uint64_t exact_hash(const Chat& chat) {
  thread_local std::string text;
  text.clear();
  const auto is_blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  const auto add = [&](std::string_view part) {
    for (auto at = part.begin(); at != part.end();) {
      const auto end = std::find_if(at, part.end(), is_blank), begin = at;
      at = std::find_if_not(end, part.end(), is_blank);
      if (begin == end) continue;  // blanks at the beginning
      text.append(begin, end);
      if (at != part.end()) text += ' ';
    }
    text += '\0';
  };
  for (const Message& message : chat.messages) add(message.role), add(message.content);
  add(chat.text);
  return xxh3(text);
}

/// What is known of one row without the others.
struct Print {
  uint64_t exact;
  std::vector<uint32_t> shingles, keys;  ///< of its sketch
};

struct Known {
  DeduplicateOptions options;
  MinHashOptions minhash_options;
  std::shared_ptr<const Boilerplate> boilerplate;
  Places places;
  std::unordered_map<uint64_t, int64_t> exact;
  MinHashIndex index;

  Known(const DeduplicateOptions& from, const GuardContext& context)
      : options(from),
        minhash_options{.words = from.words, .bands = from.bands, .rows = from.rows, .threshold = from.threshold},
        boilerplate(context.first_rows->boilerplate(static_cast<size_t>(from.words))),
        index(minhash_options) {
    for (DatasetOptions data : options.against) {
      resolve_paths(data, context.resolve);
      add_all(open_chats(data));
    }
  }

  Print print(const GuardRow& row) const {
    Print print{.exact = exact_hash(row.chat()), .shingles = {}, .keys = {}};
    if (!options.near) return print;
    const MinHashSketch& sketch = row.sketch(minhash_options, boilerplate);
    print.shingles = sketch.shingles;
    print.keys = MinHashIndex::keys_of(sketch.signature, minhash_options);
    return print;
  }

  /// A duplicate is not remembered: what resembles it is compared with the row that it resembles.
  std::optional<Finding> look(const Print& print, const std::string& place) {
    if (auto same = exact.find(print.exact); same != exact.end())
      return Finding{.rule = "exact", .detail = "same as " + places[same->second]};
    if (auto match = index.find(print.shingles, print.keys))
      return Finding{.rule = "near",
                     .detail = fmt::format("Jaccard {:.3f} with {}", match->jaccard, places[match->id])};
    const int64_t id = places.add(place);
    exact.emplace(print.exact, id);
    index.add(print.shingles, print.keys, id);
    return std::nullopt;
  }

  void add_all(const Stream<Chat>& rows) {
    constexpr size_t block_rows = 1024;
    for (;;) {
      std::vector<Chat> block;
      for (Chat chat; block.size() < block_rows && rows(chat); chat = {}) block.push_back(std::move(chat));
      if (block.empty()) return;
      std::vector<Print> prints(block.size());
      at::parallel_for(0, std::ssize(block), 16, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) prints[i] = print(GuardRow(block[i]));
      });
      for (size_t i = 0; i < block.size(); ++i) look(prints[i], block[i].place);
    }
  }
};

Look make(const GuardOptions& options, const GuardContext& context) {
  auto known = std::make_shared<Known>(static_cast<const DeduplicateOptions&>(options), context);
  return [known](const GuardRow& row, std::vector<Finding>&) -> LookInOrder {
    return [known, print = known->print(row), &chat = row.chat()](std::vector<Finding>& findings) {
      if (auto found = known->look(print, chat.place)) findings.push_back(std::move(*found));
    };
  };
}

}  // namespace

extern const GuardKind guard_deduplicate{
    .summary = "exact and near duplicates, within the rows and of earlier data sets",
    .rules = {{"exact", "the same messages but for white space"},
              {"near", "word shingles with a Jaccard similarity at or above the threshold"}},
    .by_default = true,
    .schema = []() -> const SchemaBase& { return schema_of(static_cast<DeduplicateOptions*>(nullptr)); },
    .read = read_guard_options<DeduplicateOptions>,
    .datasets = [](const GuardOptions& options) { return static_cast<const DeduplicateOptions&>(options).against; },
    .make = make,
};

}  // namespace retort
