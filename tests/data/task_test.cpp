// Tasks: extraction, filters, splits and templates, and the task of the quickstart on the real FOLDOC.
#include <gtest/gtest.h>

#include <set>

#include "core/files.h"
#include "core/hash.h"
#include "data/dataset.h"
#include "tests/core/support.h"
#include "tests/data/foldoc.h"

namespace retort {
namespace {

TaskOptions task_of(const std::string& yaml) { return from_yaml<TaskOptions>(Yaml::parse(yaml, "task.yaml")); }

std::function<Stream<Row>()> rows_of(std::vector<Json> rows) {
  return [rows] {
    return [rows, i = size_t{0}](Row& row) mutable {
      if (i == rows.size()) return false;
      row = {fmt::format("rows:{}", i + 1), rows[i]};
      ++i;
      return true;
    };
  };
}

std::vector<Chat> chats_of(const std::string& task, std::vector<Json> rows, const std::string& split = "",
                           std::optional<int64_t> limit = std::nullopt) {
  std::vector<Chat> chats;
  Stream<Chat> stream = apply_task(task_of(task), rows_of(std::move(rows)), split, limit, "rows");
  for (Chat chat; stream(chat);) chats.push_back(chat);
  return chats;
}

// The texts that a task with these filters keeps.
std::string kept(const std::string& filters, std::vector<Json> rows) {
  std::string texts;
  for (const Chat& chat : chats_of("{filters: [" + filters + "], text: '{{ text }}'}", std::move(rows)))
    texts += chat.text;
  return texts;
}

std::vector<Json> numbered(int count) {
  std::vector<Json> rows;
  for (int i = 0; i < count; ++i) rows.push_back({{"text", fmt::format("row {}", i)}});
  return rows;
}

std::set<std::string> keys_of(const std::vector<Chat>& chats) {
  std::set<std::string> keys;
  for (const Chat& chat : chats) keys.insert(chat.key);
  return keys;
}

TEST(Task, TemplatesMakeAChatAndAreTrimmed) {
  auto chats =
      chats_of("{system: ' Be short. ', prompt: \"{{ q }}?\\n\", completion: '{{ a | upper }}', key: '{{ q }}'}",
               {{{"q", "why"}, {"a", "so"}}});
  ASSERT_EQ(chats.size(), 1u);
  ASSERT_EQ(chats[0].messages.size(), 3u);
  EXPECT_EQ(chats[0].messages[0].role + ":" + chats[0].messages[0].content, "system:Be short.");
  EXPECT_EQ(chats[0].messages[1].role + ":" + chats[0].messages[1].content, "user:why?");
  EXPECT_EQ(chats[0].messages[2].role + ":" + chats[0].messages[2].content, "assistant:SO");
  EXPECT_EQ(chats[0].key, "why");
  EXPECT_EQ(chats[0].place, "rows:1");
}

TEST(Task, ExtractMakesFieldsAndCutsTheMatchesOut) {
  const std::string task =
      "{extract: [{from: text, pattern: '\\s*<(?P<first>[a-z]+)(?:, (?P<second>[a-z]+))?>', remove: true}],"
      " filters: [{field: first, present: true}], text: '{{ first }}|{{ second }}|{{ text }}'}";
  auto chats = chats_of(task, {{{"text", "a <x, y> b <z>"}}, {{"text", "no bracket"}}, {{"text", "<x> c"}}});
  ASSERT_EQ(chats.size(), 2u);
  EXPECT_EQ(chats[0].text, "x|y|a b");
  EXPECT_EQ(chats[1].text, "x|| c");
}

TEST(Task, MaxCharsCutsAtWhiteSpace) {
  EXPECT_EQ(chats_of("{max_chars: {text: 8}, text: '{{ text }}'}", {{{"text", "one two three"}}})[0].text, "one two");
}

TEST(Task, FiltersKeepWhatMeetsEveryCondition) {
  const std::vector<Json> rows = {{{"text", "a"}, {"n", "1"}},
                                  {{"text", "bb"}},
                                  {{"text", "ccc"}, {"n", 1}},
                                  {{"text", "éé"}, {"n", nullptr}},
                                  {{"text", "d"}, {"n", "2"}}};
  EXPECT_EQ(kept("{field: n, present: true}", rows), "acccd");
  EXPECT_EQ(kept("{field: n, present: false}", rows), "bbéé");
  EXPECT_EQ(kept("{field: text, matches: '[ab]'}", rows), "abb");
  EXPECT_EQ(kept("{field: text, not_matches: '^[ab]'}", rows), "cccééd");
  EXPECT_EQ(kept("{field: text, one_of: [a, d, x]}", rows), "ad");
  EXPECT_EQ(kept("{field: text, min_chars: 2, max_chars: 2}", rows), "bbéé");
  EXPECT_EQ(kept("{field: n, top: 1}", rows), "accc");
  EXPECT_EQ(kept("{field: text, not_matches: 'c'}, {field: n, top: 1}", rows),
            "a");  // 1 and 2 are level, then by value
  EXPECT_EQ(kept("{field: n, top: 1, matches: '2'}", rows), "d");
}

TEST(Task, TheMostFrequentValuesAreTheChoices) {
  std::vector<Json> rows;
  for (int i = 0; i < 9; ++i) rows.push_back({{"text", "t"}, {"c", i < 4 ? "b" : i < 7 ? "a" : "z"}});
  const std::string task =
      "{filters: [{field: c, top: 2}], choices: {top: 2, of: c}, prompt: '{{ text }}: {{ choices | join(\", \") }}', "
      "completion: '{{ c }}'}";
  auto chats = chats_of(task, rows);
  ASSERT_EQ(chats.size(), 7u);
  EXPECT_EQ(chats[0].choices, (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(chats[0].messages[0].content, "t: b, a");
  expect_error(Exit::bad_input, {"rows:8", "\"z\"", "choices (b, a)"},
               [&] { chats_of("{choices: {top: 2, of: c}, prompt: '{{ text }}', completion: '{{ c }}'}", rows); });
}

TEST(Task, SplitsAreDisjointCompleteAndStable) {
  const std::string task = "{split: {validation: 0.15, test: 0.05}, key: '{{ text }}', text: '{{ text }}'}";
  auto train = keys_of(chats_of(task, numbered(4000), "train"));
  auto validation = keys_of(chats_of(task, numbered(4000), "validation"));
  auto test = keys_of(chats_of(task, numbered(4000), "test"));
  EXPECT_EQ(train.size() + validation.size() + test.size(), 4000u);
  std::set<std::string> all = train;
  all.insert(validation.begin(), validation.end());
  all.insert(test.begin(), test.end());
  EXPECT_EQ(all.size(), 4000u);
  // Six standard deviations of a binomial.
  EXPECT_NEAR(validation.size(), 600, 6 * 22.6);
  EXPECT_NEAR(test.size(), 200, 6 * 13.8);
  // Rows that come later move nothing.
  auto more = keys_of(chats_of(task, numbered(5000), "validation"));
  for (const std::string& key : validation) EXPECT_TRUE(more.contains(key));
  // Pinned: a split must be the same on every machine and in every version.
  EXPECT_EQ(split_of({{"validation", 0.5}}, "row 0"), "train");
  EXPECT_EQ(split_of({{"validation", 0.5}}, "row 1"), "validation");
}

TEST(Task, LimitTakesExactlySoManyByHash) {
  const std::string task = "{split: {validation: 0.3}, key: '{{ text }}', text: '{{ text }}'}";
  auto some = chats_of(task, numbered(1000), "train", 100);
  auto more = keys_of(chats_of(task, numbered(1000), "train", 200));
  auto all = keys_of(chats_of(task, numbered(1000), "train"));
  EXPECT_EQ(some.size(), 100u);
  EXPECT_EQ(more.size(), 200u);
  for (const Chat& chat : some) EXPECT_TRUE(more.contains(chat.key));
  for (const std::string& key : more) EXPECT_TRUE(all.contains(key));
  EXPECT_EQ(keys_of(chats_of(task, numbered(1000), "train", 5000)), all);
  // Not the first ones of the file.
  EXPECT_GT(std::stoi(some.back().key.substr(4)), 500);
  // Equal keys have equal hashes: still exactly so many.
  std::vector<Json> same(10, Json({{"text", "t"}}));
  EXPECT_EQ(chats_of("{key: '{{ text }}', text: '{{ text }}'}", same, "", 4).size(), 4u);
}

TEST(Task, MisspeltFieldsAreFound) {
  auto run = [](const std::string& task, const std::string& split = "") { return chats_of(task, numbered(3), split); };
  expect_error(Exit::usage, {"{{ txt }}", "none of the 3 rows", "did you mean text"},
               [&] { run("{text: 'x {{ txt }}'}"); });
  expect_error(Exit::bad_input, {"no row is left", "3 rows read, 0 pass"},
               [&] { run("{filters: [{field: txt, present: true}], text: '{{ text }}'}"); });
  expect_error(Exit::usage, {"no split \"test\"", "train", "validation"},
               [&] { run("{split: {validation: 0.5}, text: '{{ text }}'}", "test"); });
  expect_error(Exit::bad_input, {"rows:1", "completion is empty"},
               [&] { run("{prompt: x, completion: '{% if no %}x{% endif %}'}"); });
  // Names that the template sets itself are no fields.
  EXPECT_EQ(run("{text: '{% set a = text %}{% for x, y in [(a, 1)] %}{{ x }}{{ loop.index }}{% endfor %}'}")[1].text,
            "row 11");
}

TEST(Task, MistakesInARecipeAreNamedWithTheirPlace) {
  auto refused = [](const std::string& yaml, std::vector<std::string> parts) {
    parts.push_back("task.yaml:1");
    expect_error(Exit::usage, parts, [&] { task_of(yaml); });
  };
  refused("{prompt: '{{ a', completion: x}", {"prompt", "not a Jinja template"});
  refused("{prompt: '{{ " + std::string(300, '(') + "1" + std::string(300, ')') + " }}', completion: x}",
          {"nests", "200"});
  refused("{prompt: x}", {"`prompt` and `completion` belong together"});
  refused("{text: x, prompt: x, completion: x}", {"one or the other"});
  refused("{split: {train: 0.5}, text: x}", {"`train` is the rest"});
  refused("{split: {a: 0.5, b: 0.5}, text: x}", {"leave nothing"});
  refused("{split: {a: 1.5}, text: x}", {"split"});
  refused("{filters: [{field: a}], text: x}", {"no condition"});
  refused("{filters: [{field: a, matches: '(a'}], text: x}", {"RE2", "(a"});
  refused("{extract: [{from: a, pattern: 'a(b)'}], text: x}", {"no named group"});
  refused("{choices: [one], prompt: x, completion: x}", {"at least two"});
  refused("{choices: {top: 3}, prompt: x, completion: x}", {"of"});
  refused("{completionn: x, text: x}", {"completionn", "did you mean completion"});
}

TEST(Task, TheQuickstartsTaskOnFoldoc) {
  const Json golden = read_json(RETORT_GOLDEN "/foldoc.json");
  const Foldoc foldoc = pull_foldoc();
  if (sha256_file(foldoc.text) != golden["sha256"]) GTEST_SKIP() << "this distribution ships another FOLDOC";
  auto options = [&](const std::string& rest) {
    return from_yaml<DatasetOptions>(Yaml::parse(R"(
kind: dictd
path: )" + foldoc.text.string() + R"(
options: {index: )" + foldoc.index.string() + R"(}
task:
  extract:
    - {from: definition, pattern: '<(?P<category>[a-z ]+)(?:,[a-z, ]*)?>'}
    - {from: definition, pattern: '\s*<[a-z][^<>]*>', remove: true}
  max_chars: {definition: 1000}
  key: "{{ headword }}"
  split: {validation: 0.1}
  prompt: "{{ headword }}: {{ definition }}"
)" + rest,
                                                 "foldoc.yaml"));
  };
  auto count = [&](const std::string& rest, std::map<std::string, int64_t>* answers = nullptr) {
    int64_t rows = 0;
    Stream<Chat> chats = open_chats(options(rest));
    for (Chat chat; chats(chat); ++rows) {
      EXPECT_EQ(chat.messages[0].content.find("<" + chat.messages[1].content), std::string::npos) << chat.place;
      if (answers) ++(*answers)[chat.messages[1].content];
    }
    return rows;
  };
  EXPECT_EQ(count("  filters: [{field: category, present: true}]\n  completion: '{{ category }}'\n"),
            golden["with_category"]);
  const std::string top =
      "  filters: [{field: category, top: 12}]\n  completion: '{{ category }}'\n  choices: {top: 12, of: category}\n";
  std::map<std::string, int64_t> answers;
  int64_t all = count(top, &answers);
  for (const auto& [category, n] : golden["categories"].get<std::vector<std::pair<std::string, int64_t>>>())
    EXPECT_EQ(answers[category], n) << category;
  EXPECT_EQ(answers.size(), 12u);
  EXPECT_EQ(count(top + "split: train\n") + count(top + "split: validation\n"), all);
  EXPECT_EQ(count(top + "split: train\nlimit: 1500\n"), 1500);
}

}  // namespace
}  // namespace retort
