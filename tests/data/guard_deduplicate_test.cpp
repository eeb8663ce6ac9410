// Words, MinHash against its formula and against exact Jaccard, and the duplicates that a recipe asks for.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/files.h"
#include "core/rng.h"
#include "core/temporary_folder.h"
#include "data/dataset.h"
#include "data/minhash.h"
#include "tests/core/support.h"
#include "tests/data/foldoc.h"
#include "tests/data/guard_support.h"

namespace retort {
namespace {

Words words_of(const std::string& text) {
  Words words;
  words.add(text);
  return words;
}

TEST(Words, AreTheSameWhateverCaseSpacingAndPunctuation) {
  const auto same = [](const char* a, const char* b) { return words_of(a).hashes == words_of(b).hashes; };
  EXPECT_TRUE(same("The cat, (sat).", "the  cat\nSAT"));
  EXPECT_TRUE(same("ÉTUDE Straße ΣΟΦΟΣ ПРИВЕТ Ёж ԲԱՐԵՎ Ｔｏ", "étude straße σοφος привет ёж բարեվ ｔｏ"));
  EXPECT_TRUE(same("Łódź ŽIVOT ỆM", "łódź život ệm"));
  EXPECT_TRUE(same("“quoted” — dash…", "quoted dash"));
  EXPECT_TRUE(same("東京は。", "東 京 は"));
  EXPECT_FALSE(same("etude", "étude"));
  EXPECT_FALSE(same("2+3", "2-3"));
  EXPECT_FALSE(same("2+3", "2/3"));
  EXPECT_FALSE(same("3.5", "35"));
  EXPECT_TRUE(same("well-known", "well known"));
  EXPECT_EQ(words_of("\xff\xfe"
                     "a\x80"
                     "b\xe2\x82")
                .hashes,
            words_of("a b").hashes);
  EXPECT_EQ(words_of("ab cd").hashes.size(), 2u);
}

TEST(Words, GramsDependOnTheirWordsAlone) {
  const auto grams = word_grams(words_of("a b c d a b c"), 3), other = word_grams(words_of("x a b c"), 3);
  ASSERT_EQ(grams.size(), 5u);
  EXPECT_EQ(grams[0], grams[4]);
  EXPECT_EQ(grams[0], other[1]);
  EXPECT_EQ(std::set<uint64_t>(grams.begin(), grams.end()).size(), 4u);
  EXPECT_NE(word_grams(words_of("a b"), 2), word_grams(words_of("b a"), 2));
  EXPECT_TRUE(word_grams(words_of("a b"), 3).empty());
}

/// Two sets of random shingles with this many in common and of their own.
std::pair<Words, Words> overlapping(Rng& rng, size_t both, size_t own) {
  std::pair<Words, Words> pair;
  for (size_t i = 0; i < both; ++i) {
    pair.first.hashes.push_back(rng.next());
    pair.second.hashes.push_back(pair.first.hashes.back());
  }
  for (size_t i = 0; i < own; ++i) pair.first.hashes.push_back(rng.next()), pair.second.hashes.push_back(rng.next());
  return pair;
}

// Each hash agrees with probability J, and the bands find a pair with probability 1 - (1 - J^rows)^bands.
TEST(MinHash, AgreesWithItsFormula) {
  const MinHashOptions options{.words = 1};
  const size_t hashes = static_cast<size_t>(options.bands * options.rows);
  Rng rng(11);
  for (const auto& [both, own] :
       std::vector<std::pair<size_t, size_t>>{{40, 30}, {50, 25}, {60, 20}, {16, 2}, {80, 10}}) {
    constexpr int trials = 3000;
    const double truth = static_cast<double>(both) / static_cast<double>(both + 2 * own);
    size_t equal = 0, found = 0;
    for (int trial = 0; trial < trials; ++trial) {
      const auto [a, b] = overlapping(rng, both, own);
      const MinHashSketch left = minhash(a, options), right = minhash(b, options);
      EXPECT_NEAR(jaccard(left.shingles, right.shingles), truth, 1e-12);
      for (size_t i = 0; i < hashes; ++i) equal += left.signature[i] == right.signature[i];
      MinHashOptions any = options;
      any.threshold = 1e-9;  // every candidate is a match
      MinHashIndex index(any);
      index.add(left, 0);
      found += index.find(right).has_value();
    }
    const double share = static_cast<double>(equal) / static_cast<double>(trials) / static_cast<double>(hashes);
    // Hashes of one pair are independent given a perfect family; 5 standard errors.
    EXPECT_NEAR(share, truth, 5 * std::sqrt(truth * (1 - truth) / (trials * static_cast<double>(hashes)))) << truth;
    const double expected = candidate_probability(truth, options);
    EXPECT_NEAR(static_cast<double>(found) / trials, expected, 5 * std::sqrt(expected * (1 - expected) / trials) + 1e-3)
        << truth;
  }
}

// Pairs and similarities from Python's sets (tests/golden/make_guards.py).
TEST(MinHash, FindsThePairsThatExactJaccardFinds) {
  const Json golden = read_json(RETORT_GOLDEN "/guards.json")["near"];
  const MinHashOptions options{.threshold = 0.8};
  std::vector<MinHashSketch> sketches;
  for (const Json& row : golden["rows"]) sketches.push_back(minhash(words_of(row.get<std::string>()), options));
  std::map<size_t, double> best;  // by row: its most similar earlier one
  for (const Json& pair : golden["pairs"]) {
    const size_t a = pair[0], b = pair[1];
    EXPECT_NEAR(jaccard(sketches[a].shingles, sketches[b].shingles), pair[2].get<double>(), 1e-9);
    if (pair[2].get<double>() >= 0.8) best[b] = std::max(best[b], pair[2].get<double>());
  }
  ASSERT_GT(best.size(), 30u);
  MinHashIndex index(options);
  for (size_t row = 0; row < sketches.size(); ++row) {
    const auto match = index.find(sketches[row]);
    EXPECT_EQ(match.has_value(), best.contains(row)) << row;
    if (match && best.contains(row)) {
      EXPECT_NEAR(match->jaccard, best[row], 1e-9);
    }
    index.add(sketches[row], static_cast<int64_t>(row));
  }
}

// Every pair of 3,000 definitions compared, and what the index finds of them.
TEST(MinHash, MissesNoNearDuplicateOfRealText) {
  const Foldoc foldoc = pull_foldoc();
  const Stream<Row> rows =
      open_rows({.kind = "dictd", .path = foldoc.text, .options = {{"index", foldoc.index.string()}}});
  const MinHashOptions options{.words = 3, .threshold = 0.6};
  std::vector<MinHashSketch> sketches;
  for (Row row; sketches.size() < 3000 && rows(row);)
    sketches.push_back(minhash(words_of(row.fields["definition"].get<std::string>()), options));
  MinHashIndex index(options);
  size_t pairs = 0, found = 0;
  for (size_t i = 0; i < sketches.size(); ++i) {
    double most = 0;
    for (size_t j = 0; j < i; ++j) most = std::max(most, jaccard(sketches[i].shingles, sketches[j].shingles));
    const auto match = index.find(sketches[i]);
    EXPECT_LE(match ? match->jaccard : 0, most);
    pairs += most >= options.threshold;
    found += match.has_value();
    index.add(sketches[i], static_cast<int64_t>(i));
  }
  EXPECT_GT(pairs, 5u);
  // At J = 0.6 a pair is found with probability 0.57, at 0.8 with 0.995.
  EXPECT_GE(static_cast<double>(found), 0.7 * static_cast<double>(pairs)) << pairs;
}

const std::string off = "contamination: false, secrets: false, deduplicate: ";
const std::string fox =
    "the quick brown fox jumps over the lazy dog while seven wizards box quietly at night near the old stone bridge";

TEST(Deduplicate, NamesTheRowThatARowIsLike) {
  const Guarded result = guard("{" + off + "{action: drop}}",
                               text_rows({fox, "something else altogether", "  " + fox + "\n", fox + " again"}));
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.found(), (std::vector<std::string>{"exact rows:3", "near rows:4"}));
  EXPECT_EQ(result.audit[0]["detail"], "same as rows:1");
  EXPECT_EQ(result.audit[1]["detail"], "Jaccard 0.944 with rows:1");  // 17 of 18 shingles
}

TEST(Deduplicate, TakesNoOtherFormulaForTheSame) {
  const Guarded result =
      guard("{" + off + "{}}", {chat_row("What is 2+3?", "5", "r:1"), chat_row("What is 2-3?", "-1", "r:2"),
                                chat_row("what is 2+3?", "5", "r:3"), chat_row("What is  2+3?\n", "5", "r:4")});
  EXPECT_EQ(result.found(), (std::vector<std::string>{"near r:3", "exact r:4"}));
}

TEST(Deduplicate, TellsRolesAndMessagesApart) {
  const Guarded result = guard("{" + off + "{near: false}}",
                               {chat_row("a b", "c", "r:1"), chat_row("a", "b c", "r:2"), text_row("a b c", "r:3")});
  EXPECT_TRUE(result.audit.empty());
}

// A near copy of a near copy that is not one of the first row stays: each dropped row has a kept one that it is like.
TEST(Deduplicate, ComparesWithRowsThatStay) {
  const std::string more = fox + " one two three four", most = more + " five six seven eight";
  const Guarded result = guard("{" + off + "{action: drop, threshold: 0.75}}", text_rows({fox, more, most}));
  EXPECT_EQ(result.found(), (std::vector<std::string>{"near rows:2"}));
}

// A row that another guard drops is nobody's original.
TEST(Deduplicate, ForgetsRowsThatOtherGuardsDrop) {
  const Guarded result = guard(
      "{contamination: false, secrets: false, deduplicate: {action: drop}, quality: {action: drop, rules: "
      "[c4_curly_bracket]}}",
      text_rows({fox + " {", fox}));
  ASSERT_EQ(result.rows.size(), 1u);
  EXPECT_EQ(result.rows[0].place, "rows:2");
}

TEST(Deduplicate, ComparesNewRowsWithOldOnes) {
  const TemporaryFolder folder;
  const std::string old = (folder / "old.jsonl").string();
  write_atomic(old, Json{{"text", fox}}.dump() + "\n" + Json{{"text", "something"}}.dump() + "\n");
  const Guarded result = guard("{" + off + "{action: drop, against: [{kind: jsonl, path: " + old + "}]}}",
                               text_rows({"new", fox + " again", "something"}));
  ASSERT_EQ(result.rows.size(), 1u);
  EXPECT_EQ(result.audit[0]["detail"], "Jaccard 0.944 with " + old + ":1");
  EXPECT_EQ(result.audit[1]["detail"], "same as " + old + ":2");
}

// 40 words of template and one of its own make no near duplicates.
TEST(Deduplicate, LooksPastATemplate) {
  std::vector<Chat> rows;
  for (int i = 0; i < 60; ++i)
    rows.push_back(chat_row(fox + " and " + fox + fmt::format(" term a{}", i), "yes", fmt::format("r:{}", i + 1)));
  EXPECT_TRUE(guard("{" + off + "{}}", rows).audit.empty());
  rows.resize(10);  // too few to know what a template is
  EXPECT_EQ(guard("{" + off + "{}}", rows).audit.size(), 9u);
}

}  // namespace
}  // namespace retort
