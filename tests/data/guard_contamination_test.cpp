// Evaluation rows among training rows, however they are cut.
#include <gtest/gtest.h>

#include "tests/core/support.h"
#include "tests/data/guard_support.h"

namespace retort {
namespace {

const std::string off = "deduplicate: false, secrets: false, contamination: ";
const std::string thirteen = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu";

std::vector<std::string> rules(const Guarded& result) {
  std::vector<std::string> found;
  for (const Json& line : result.audit) found.push_back(line["rule"]);
  return found;
}
using Rules = std::vector<std::string>;

TEST(Contamination, FindsThirteenWordsInARowAndNotTwelve) {
  const auto held = text_rows({"before it " + thirteen + " after it come more words than anybody needs"}, "held");
  const Guarded result =
      guard("{" + off + "{}}",
            text_rows({"x y z. " + thirteen + " q r s t u v w x y z", thirteen.substr(6) + " and on"}), held);
  ASSERT_EQ(rules(result), Rules{"ngram"});
  EXPECT_EQ(result.audit[0]["place"], "rows:1");
  EXPECT_EQ(result.audit[0]["detail"], "1 × 13 words in a row, as in validation row held:1");
}

TEST(Contamination, LooksAcrossTheSeamOfPromptAndAnswer) {
  const std::string question = "which of the noble gases is the one that is used in", answer = "balloons";
  const Guarded result = guard(
      "{" + off + "{}}",
      {chat_row("Continue!",
                "well, which of the noble gases is the one that is used in balloons and more of that kind of thing",
                "r:1")},
      {chat_row("a long beginning that is not in the row: " + question, answer, "held:1")});
  EXPECT_EQ(rules(result), Rules{"ngram"});
}

TEST(Contamination, FindsShortRowsByEightWordsAndShorterOnesWhole) {
  const std::vector<Chat> held = {chat_row("What is the boiling point of liquid helium?", "4.2 kelvin", "held:1"),
                                  chat_row("Capital of Peru?", "Lima", "held:2")};
  const Guarded result = guard(
      "{" + off + "{}}",
      {chat_row("Tell me: what is the boiling point of liquid helium? I need it.", "I do not know", "r:1"),
       chat_row("capital of peru", "LIMA", "r:2"), chat_row("Capital of Peru and of Chile?", "Lima, Santiago", "r:3"),
       chat_row("What is the boiling point of water", "100", "r:4")},
      held);
  EXPECT_EQ(result.found(), (Rules{"short_ngram r:1", "whole r:2"}));
}

TEST(Contamination, FindsNearCopiesWithoutThirteenWordsInARow) {
  std::string row, copy;
  for (int i = 0; i < 96; ++i) {
    row += fmt::format("w{} ", i);
    copy += i % 12 == 11 ? "changed " : fmt::format("w{} ", i);
  }
  const Guarded result = guard("{" + off + "{threshold: 0.4}}", text_rows({copy}), text_rows({row}, "held"));
  EXPECT_EQ(rules(result), Rules{"near"});
}

TEST(Contamination, DoesNotTakeATemplateForARow) {
  const std::string instruction =
      "Which category of computing does this term belong to? Answer with the category only please. Term: ";
  std::vector<Chat> rows, held;
  for (int i = 0; i < 40; ++i)
    rows.push_back(chat_row(instruction + fmt::format("t{}", i), "networking", fmt::format("r:{}", i)));
  held.push_back(chat_row(instruction + "something else", "hardware", "held:1"));
  EXPECT_TRUE(guard("{" + off + "{}}", rows, held).audit.empty());
  // Nor a template with the one word that follows it in both.
  held.push_back(chat_row(instruction + "t3 or more", "software", "held:2"));
  EXPECT_TRUE(guard("{" + off + "{}}", rows, held).audit.empty());
  // But what is written behind it counts.
  rows.push_back(chat_row(instruction + "this " + thirteen, "networking", "r:41"));
  held.push_back(chat_row(instruction + "that " + thirteen, "hardware", "held:3"));
  EXPECT_EQ(guard("{" + off + "{threshold: 1}}", rows, held).found(), Rules{"ngram r:41"});
  // A text that more than `common` evaluation rows share says nothing either.
  held.clear();
  for (int i = 0; i < 30; ++i)
    held.push_back(chat_row(fmt::format("q{} ", i) + (i < 11 ? thirteen : fmt::format("{} {} {}", i * 3, i * 5, i * 7)),
                            "a", "held"));
  EXPECT_TRUE(guard("{" + off + "{}}", text_rows({thirteen + " and more"}), held).audit.empty());
  EXPECT_EQ(rules(guard("{" + off + "{common: 11}}", text_rows({thirteen + " and more"}), held)), Rules{"ngram"});
}

TEST(Contamination, EndsARunWithItsOwnCode) {
  const auto rows = text_rows({thirteen});
  expect_error(Exit::contamination, {"rows:1", "contamination", "held:1"},
               [&] { guard("{" + off + "{action: fail}}", rows, text_rows({thirteen}, "held")); });
  const Guarded all =
      guard("{" + off + "{action: fail}, quality: {action: fail}}", rows, text_rows({thirteen}, "held"), false);
  EXPECT_EQ(refusal_of(all.totals), Exit::contamination);
}

TEST(Contamination, SystemMessagesSayNothingAboutARow) {
  Chat row = chat_row("q", "a", "r:1"), held = chat_row("other", "b", "held:1");
  row.messages.insert(row.messages.begin(), {"system", thirteen});
  held.messages.insert(held.messages.begin(), {"system", thirteen});
  EXPECT_TRUE(guard("{" + off + "{}}", {row}, {held}).audit.empty());
}

}  // namespace
}  // namespace retort
