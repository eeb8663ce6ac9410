// Evaluation and gate rows among the training rows: a model that has seen them is not measured by them.
#include <unordered_map>

#include "data/guard.h"
#include "data/minhash.h"

namespace retort {
namespace {

struct ContaminationOptions : GuardOptions {
  int64_t words = 13, short_words = 8;
  int64_t common = 10;
  double threshold = 0.8;
};

const Schema<ContaminationOptions>& schema_of(ContaminationOptions*) {
  using O = ContaminationOptions;
  static const auto schema =
      guard_schema<O>("contamination", "Training rows that hold a part of an evaluation or gate row.", false)
          .field("words", &O::words, "so many words in a row that an evaluation row has too",
                 {.minimum = 2, .maximum = 64})
          .field("short_words", &O::short_words,
                 "the same for evaluation rows of fewer words; those that are shorter still must be equal",
                 {.minimum = 2, .maximum = 64})
          .field("common", &O::common, "n-grams of more evaluation rows than this are nobody's", {.minimum = 1})
          .field("threshold", &O::threshold, "Jaccard similarity from which a row is a near duplicate of one",
                 {.minimum = 0, .maximum = 1, .minimum_open = true})
          .rule([](const O& options, const Yaml& node) {
            if (options.short_words > options.words) node["short_words"].refuse("must not be above words");
          });
  return schema;
}

/// A set of 64-bit hashes that says no quickly: most n-grams are in no evaluation row.
class Grams {
 public:
  void add(uint64_t gram, uint32_t item) {
    auto [found, fresh] = items_.emplace(gram, Entry{item, 1});
    if (!fresh && found->second.last != item) found->second = {item, found->second.count + 1, found->second.first};
    if (fresh) found->second.first = item;
  }
  /// Takes out what more than `common` items have, and what half of more than one have.
  void finish(size_t common, size_t items) {
    std::erase_if(items_, [&](const auto& entry) {
      const size_t count = entry.second.count;
      return count > common || (count > 1 && count * 2 > items);
    });
    size_t bits = 1 << 16;
    while (bits < items_.size() * 16) bits *= 2;
    bits_.assign(bits / 64, 0);
    for (const auto& [gram, entry] : items_) bits_[(gram & (bits - 1)) / 64] |= uint64_t{1} << (gram % 64);
  }
  std::optional<uint32_t> find(uint64_t gram) const {
    if (!(bits_[(gram / 64) & (bits_.size() - 1)] >> (gram % 64) & 1)) return std::nullopt;
    auto found = items_.find(gram);
    return found == items_.end() ? std::nullopt : std::optional(found->second.first);
  }
  bool empty() const { return items_.empty(); }

 private:
  struct Entry {
    uint32_t last;
    uint32_t count;
    uint32_t first = 0;
  };
  std::unordered_map<uint64_t, Entry> items_;
  std::vector<uint64_t> bits_;
};

/// The n-grams of a row but those of which more than half are a template's words in a row: "Answer with one word. Term:
/// active" says nothing about the row that it begins.
class OwnGrams {
 public:
  OwnGrams(FirstRows& first_rows, size_t n) : n_(n), half_(n / 2 + 1), boilerplate_(first_rows.boilerplate(half_)) {}

  template <typename Use>
  void each(const Words& words, Use use) const {
    const std::vector<uint64_t> grams = word_grams(words, n_), halves = word_grams(words, half_);
    size_t free_from = 0;  // the first gram after the last template seen
    for (size_t half = 0; half < halves.size(); ++half) {
      if (boilerplate_->contains(halves[half])) free_from = half + 1;
      if (half + half_ < n_) continue;
      const size_t gram = half + half_ - n_;
      if (gram >= free_from) use(grams[gram]);
    }
  }

 private:
  size_t n_, half_;
  std::shared_ptr<const Boilerplate> boilerplate_;
};

struct Held {
  ContaminationOptions options;
  MinHashOptions minhash_options;
  std::shared_ptr<const Boilerplate> boilerplate;
  std::vector<std::string> items;  ///< "validation: file:line"
  OwnGrams own, short_own;
  Grams grams, short_grams;
  std::unordered_map<uint64_t, uint32_t> whole;  ///< hash of all words -> item
  MinHashIndex index;

  Held(const ContaminationOptions& from, const GuardContext& context)
      : options(from),
        minhash_options{.bands = 36, .rows = 3, .threshold = from.threshold},  // finds pairs of low similarity too
        boilerplate(context.first_rows->boilerplate(static_cast<size_t>(minhash_options.words))),
        own(*context.first_rows, static_cast<size_t>(from.words)),
        short_own(*context.first_rows, static_cast<size_t>(from.short_words)),
        index(minhash_options) {
    for (const GuardSource& source : context.held_out) {
      const Stream<Chat> rows = source.open();
      for (Chat chat; rows(chat); chat = {}) add(source.name, chat);
    }
    const auto common = static_cast<size_t>(options.common);
    grams.finish(common, items.size());
    short_grams.finish(common, items.size());
  }

  void add(const std::string& source, const Chat& chat) {
    const GuardRow row(chat);
    const auto item = static_cast<uint32_t>(items.size());
    items.push_back(source + " row " + chat.place);
    const size_t length = row.words().hashes.size();
    if (length == 0) return;
    whole.emplace(hash_of(row.words()), item);
    // Prompt and answer are one sequence of words, so the n-grams across their seam are among these.
    if (length >= static_cast<size_t>(options.words))
      own.each(row.words(), [&](uint64_t gram) { grams.add(gram, item); });
    else
      short_own.each(row.words(), [&](uint64_t gram) { short_grams.add(gram, item); });
    index.add(row.sketch(minhash_options, boilerplate), item);
  }

  /// How many n-grams of the row are in the set, and the item that most of the first belong to.
  void look_for(const Grams& set, int64_t n, const char* rule, const GuardRow& row,
                std::vector<Finding>& findings) const {
    if (set.empty()) return;
    size_t count = 0;
    std::optional<uint32_t> first;
    each_word_gram(row.words(), static_cast<size_t>(n), [&](uint64_t gram) {
      if (auto item = set.find(gram)) ++count, first = first ? first : item;
    });
    if (first)
      findings.push_back(
          {.rule = rule, .detail = fmt::format("{} × {} words in a row, as in {}", count, n, items[*first])});
  }

  void look(const GuardRow& row, std::vector<Finding>& findings) const {
    if (items.empty() || row.words().hashes.empty()) return;
    if (auto same = whole.find(hash_of(row.words())); same != whole.end()) {
      findings.push_back({.rule = "whole", .detail = "all words of " + items[same->second]});
      return;
    }
    look_for(grams, options.words, "ngram", row, findings);
    look_for(short_grams, options.short_words, "short_ngram", row, findings);
    if (auto match = index.find(row.sketch(minhash_options, boilerplate)))
      findings.push_back(
          {.rule = "near",
           .detail = fmt::format("Jaccard {:.3f} with {}", match->jaccard, items[static_cast<size_t>(match->id)])});
  }
};

Look make(const GuardOptions& options, const GuardContext& context) {
  auto held = std::make_shared<const Held>(static_cast<const ContaminationOptions&>(options), context);
  return [held](const GuardRow& row, std::vector<Finding>& findings) -> LookInOrder {
    held->look(row, findings);
    return {};
  };
}

}  // namespace

extern const GuardKind guard_contamination{
    .summary = "training rows that hold a part of an evaluation or gate row",
    .rules = {{"whole", "the same words as an evaluation row"},
              {"ngram", "13 words in a row that an evaluation row has, across the seam of prompt and answer too"},
              {"short_ngram", "8 words in a row of an evaluation row of fewer than 13"},
              {"near", "near duplicate of an evaluation row (MinHash, verified)"}},
    .refusal = Exit::contamination,
    .by_default = true,
    .schema = []() -> const SchemaBase& { return schema_of(static_cast<ContaminationOptions*>(nullptr)); },
    .read = read_guard_options<ContaminationOptions>,
    .make = make,
};

}  // namespace retort
