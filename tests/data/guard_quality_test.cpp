// Measures as datatrove's filters make them (tests/golden/make_guards.py).
#include <gtest/gtest.h>

#include "data/text_measures.h"
#include "tests/core/support.h"
#include "tests/data/guard_support.h"

namespace retort {
namespace {

double measure(const std::vector<double>& values, const std::string& name) {
  for (size_t i = 0; i < text_rules().size(); ++i)
    if (text_rules()[i].name == name) return values[i];
  ADD_FAILURE() << name;
  return 0;
}

TEST(TextMeasures, AreDatatroves) {
  for (const Json& golden : read_json(RETORT_GOLDEN "/guards.json")["texts"]) {
    const std::vector<double> values = text_measures(golden["text"].get<std::string>());
    for (const auto& [name, value] : golden["measures"].items()) {
      const double ours = name == "gopher_symbols"
                              ? std::max(measure(values, "gopher_hashes"), measure(values, "gopher_ellipses"))
                              : measure(values, name);
      EXPECT_NEAR(ours, value.get<double>(), 1e-8) << name << " of " << golden["text"];
    }
  }
}

TEST(TextMeasures, CountWhatC4LooksFor) {
  const std::vector<double> values = text_measures(
      "Lorem Ipsum and lorem ipsum {x}.\nUse JAVASCRIPT here, please. It works.\nOur Privacy Policy says so.\n" +
      std::string(1200, 'y'));
  EXPECT_EQ(measure(values, "c4_lorem_ipsum"), 2);
  EXPECT_EQ(measure(values, "c4_curly_bracket"), 1);
  EXPECT_EQ(measure(values, "c4_javascript"), 1);
  EXPECT_EQ(measure(values, "c4_policy"), 1);
  EXPECT_EQ(measure(values, "c4_long_word"), 1200);
  EXPECT_EQ(measure(values, "c4_sentences"), 1);
  EXPECT_TRUE(text_measures(" \n").empty());
}

TEST(TextMeasures, HaveTheLimitsOfTheirAuthors) {
  std::map<std::string, double> limits;
  for (const TextRule& rule : text_rules()) limits[rule.name] = rule.limit;
  // Gopher: table A1 and section A.1.1; C4: section 2.2; FineWeb: section 3.6.
  const std::map<std::string, double> published = {{"gopher_min_words", 50},
                                                   {"gopher_max_words", 100000},
                                                   {"gopher_min_word_length", 3},
                                                   {"gopher_max_word_length", 10},
                                                   {"gopher_hashes", .1},
                                                   {"gopher_ellipses", .1},
                                                   {"gopher_bullet_lines", .9},
                                                   {"gopher_ellipsis_lines", .3},
                                                   {"gopher_alphabetic_words", .8},
                                                   {"gopher_stop_words", 2},
                                                   {"gopher_duplicate_lines", .3},
                                                   {"gopher_duplicate_line_chars", .2},
                                                   {"gopher_duplicate_paragraphs", .3},
                                                   {"gopher_duplicate_paragraph_chars", .2},
                                                   {"gopher_top_2_gram", .2},
                                                   {"gopher_top_3_gram", .18},
                                                   {"gopher_top_4_gram", .16},
                                                   {"gopher_duplicate_5_gram", .15},
                                                   {"gopher_duplicate_6_gram", .14},
                                                   {"gopher_duplicate_7_gram", .13},
                                                   {"gopher_duplicate_8_gram", .12},
                                                   {"gopher_duplicate_9_gram", .11},
                                                   {"gopher_duplicate_10_gram", .10},
                                                   {"c4_sentences", 5},
                                                   {"c4_curly_bracket", 0},
                                                   {"c4_lorem_ipsum", 0},
                                                   {"c4_javascript", 0},
                                                   {"c4_policy", 0},
                                                   {"c4_long_word", 1000},
                                                   {"fineweb_punctuation", .12},
                                                   {"fineweb_short_lines", .67},
                                                   {"fineweb_duplicate_chars", .01},
                                                   {"fineweb_newlines", .3}};
  EXPECT_EQ(limits, published);
}

TEST(Quality, MeasuresTheAnswerAndReports) {
  const std::string off = "{deduplicate: false, contamination: false, secrets: false, quality: ";
  const Guarded result =
      guard(off + "{rules: [c4_curly_bracket, gopher_max_words], limits: {gopher_max_words: 3}}}",
            {chat_row("{in the prompt}", "plain answer", "r:1"), chat_row("q", "{\"a\": 1, of four words}", "r:2")});
  EXPECT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.found(), (std::vector<std::string>{"gopher_max_words r:2", "c4_curly_bracket r:2"}));
  EXPECT_EQ(result.audit[1]["detail"], "1, at most 0");
}

}  // namespace
}  // namespace retort
