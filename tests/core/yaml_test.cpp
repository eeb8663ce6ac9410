#include "core/yaml.h"

#include <cstdlib>
#include <fstream>

#include "core/rng.h"
#include "core/yaml_tree.h"
#include "tests/core/support.h"

namespace retort {
namespace {

Yaml parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return Yaml::parse(text, "r.yaml", overrides);
}

TEST(Yaml, EveryNodeKnowsItsPlace) {
  const Yaml root = parse("# a comment\nadapter:\n  r: 16\ntrain:\n  - {path: a}\n  - path: b\n    kind: c\n");
  EXPECT_EQ(root["adapter"]["r"].where(), "r.yaml:3 adapter.r");
  EXPECT_EQ(root["train"].where(), "r.yaml:4 train");
  EXPECT_EQ(root["train"].items()[1]["kind"].where(), "r.yaml:7 train[1].kind");
  EXPECT_EQ(root["train"].items()[1].key(), "train[1]");
}

TEST(Yaml, TypesAreStrict) {
  const Yaml root =
      parse("i: 12\nd: 5e-4\nb: true\ns: text\nq: \"12\"\nyes_: yes\nn: null\nbig: 99999999999999999999\ninf: inf\n");
  EXPECT_EQ(root["i"].as_int(), 12);
  EXPECT_EQ(root["i"].as_double(), 12.0);
  EXPECT_EQ(root["d"].as_double(), 5e-4);
  EXPECT_TRUE(root["b"].as_bool());
  EXPECT_EQ(root["q"].as_string(), "12");
  EXPECT_TRUE(root["n"].is_null());
  expect_error(Exit::usage, {"r.yaml:5 q: expected a whole number, found \"12\""}, [&] { root["q"].as_int(); });
  expect_error(Exit::usage, {"r.yaml:6 yes_: expected true or false, found yes"}, [&] { root["yes_"].as_bool(); });
  expect_error(Exit::usage, {"expected a whole number, found 5e-4"}, [&] { root["d"].as_int(); });
  expect_error(Exit::usage, {"expected a whole number"}, [&] { root["big"].as_int(); });
  expect_error(Exit::usage, {"expected a number, found inf"}, [&] { root["inf"].as_double(); });
  expect_error(Exit::usage, {"expected text, found nothing"}, [&] { root["n"].as_string(); });
  expect_error(Exit::usage, {"expected a list"}, [&] { root["i"].items(); });
  expect_error(Exit::usage, {"expected a map"}, [&] { root["i"].entries(); });
  expect_error(Exit::usage, {"r.yaml:1: the key \"zzz\" is missing"}, [&] { root["zzz"]; });
}

TEST(Yaml, UntypedValuesFollowTheCoreSchema) {
  const Json json = parse("a: [1, -2.5, true, null, no, \"3\", 1.5e3, '~', ~]\nb: {c: text}\n").as_json();
  EXPECT_EQ(json.dump(), R"({"a":[1,-2.5,true,null,"no","3",1500.0,"~",null],"b":{"c":"text"}})");
}

TEST(Yaml, DuplicateKeysAreRefused) {
  expect_error(Exit::usage, {"r.yaml:3:1", "the key \"r\" stands twice"}, [] { parse("r: 1\ns: 2\nr: 3\n"); });
  expect_error(Exit::usage, {"stands twice"}, [] { parse("{a: {b: 1, b: 2}}"); });
}

TEST(Yaml, SyntaxErrorsSayLineAndColumn) {
  expect_error(Exit::usage, {"r.yaml:3:1: not valid YAML"}, [] { parse("a: 1\nb: [1, 2\n"); });
  expect_error(Exit::usage, {"r.yaml:2", "not valid YAML"}, [] { parse("a: 1\n\tb: 2\n"); });
  expect_error(Exit::usage, {"second document"}, [] { parse("a: 1\n---\nb: 2\n"); });
  expect_error(Exit::usage, {"the tag", "remove it"}, [] { parse("a: !python/object x\n"); });
  expect_error(Exit::usage, {"cannot be a key"}, [] { parse("[a, b]: 1\n"); });
  expect_error(Exit::usage, {"not valid YAML"}, [] { parse("a: *nowhere\n"); });
}

TEST(Yaml, DeepNestingIsRefused) {
  expect_error(Exit::usage, {"nested deeper"}, [] { parse(std::string(70, '[') + std::string(70, ']')); });
  expect_error(Exit::usage, {}, [] { parse(std::string(1'000'000, '[')); });
  expect_error(Exit::usage, {}, [] { parse(std::string(1'000'000, '{')); });
  std::string block;
  for (int i = 0; i < 2000; ++i) block += std::string(i, ' ') + "a:\n";
  expect_error(Exit::usage, {}, [&] { parse(block); });
}

TEST(Yaml, AliasesCopyAndBombsAreRefused) {
  const Yaml root = parse("base: &b {x: 1}\nother: *b\n");
  EXPECT_EQ(root["other"]["x"].as_int(), 1);
  EXPECT_EQ(root["other"]["x"].key(), "other.x");
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    bomb += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("*a{},", i - 1);
    bomb += "]\n";
  }
  expect_error(Exit::usage, {"more than 20000 values"}, [&] { parse(bomb); });
  expect_error(Exit::usage, {"alias"}, [] { parse("a: &a [*a]\n"); });
}

TEST(Yaml, OverridesReplaceAddAndDelete) {
  const Yaml root =
      parse("train: {lr: 1, steps: 2}\ndata: [{path: a}, {path: b}]\n",
            {"train.lr=5e-4", "adapter.r=8", "data.1.path=c", "~train.steps", "list=[1, 2]", "empty=", "eq=a=b"});
  EXPECT_EQ(root["train"]["lr"].as_double(), 5e-4);
  EXPECT_EQ(root["train"]["lr"].where(), "command line: train.lr=5e-4 train.lr");
  EXPECT_FALSE(root["train"].has("steps"));
  EXPECT_EQ(root["adapter"]["r"].as_int(), 8);
  EXPECT_EQ(root["data"].items()[1]["path"].as_string(), "c");
  EXPECT_EQ(root["list"].items().size(), 2u);
  EXPECT_TRUE(root["empty"].is_null());
  EXPECT_EQ(root["eq"].as_string(), "a=b");
  expect_error(Exit::usage, {"command line: nonsense", "expected key=value"}, [] { parse("a: 1", {"nonsense"}); });
  expect_error(Exit::usage, {"\"x\" cannot be set here"}, [] { parse("a: 1", {"a.x=2"}); });
  expect_error(Exit::usage, {"the list has 1 items"}, [] { parse("a: [1]", {"a.3=2"}); });
  expect_error(Exit::usage, {"no such key (\"b\")"}, [] { parse("a: 1", {"~b"}); });
  expect_error(Exit::usage, {"command line"}, [] { parse("a: 1", {"a=[1"}); });
}

TEST(Yaml, DeletingAListItemKeepsTheOthers) {
  EXPECT_EQ(parse("a: [x, y, z]", {"~a.1"}).as_json().dump(), R"({"a":["x","z"]})");
}

TEST(Yaml, ReferencesTakeValuesAndVariables) {
  setenv("RETORT_TEST_VARIABLE", "7", 1);
  const Yaml root = parse(
      "name: foldoc\nout: runs/${name}-${train.lr}\nsame: ${train}\ntrain: {lr: 5e-4, steps: \"${n}\"}\nn: 3\n"
      "env: ${env:RETORT_TEST_VARIABLE}\nhome: x${env:RETORT_TEST_VARIABLE}\nprice: $${name} and ${name}\n",
      {"name=other"});
  EXPECT_EQ(root["out"].as_string(), "runs/other-5e-4");
  EXPECT_EQ(root["same"]["steps"].as_int(), 3);
  EXPECT_EQ(root["same"]["steps"].key(), "same.steps");
  EXPECT_EQ(root["env"].as_int(), 7);
  EXPECT_EQ(root["home"].as_string(), "x7");
  EXPECT_EQ(root["price"].as_string(), "${name} and other");
}

TEST(Yaml, WhatIsStoredNamesVariablesInsteadOfTheirValues) {
  setenv("RETORT_TEST_VARIABLE", "T0KEN", 1);
  const std::string text =
      "hook: https://h/${env:RETORT_TEST_VARIABLE}?a=$${b}&c=${n}\nsame: ${hook}\npart: see ${hook}\nn: 3\n"
      "alone: \"${env:RETORT_TEST_VARIABLE}\"\n";
  const Yaml root = parse(text);
  EXPECT_EQ(root["part"].as_string(), "see https://h/T0KEN?a=${b}&c=3");
  const std::string stored = stored_yaml(text, "r.yaml");
  EXPECT_EQ(stored.find("T0KEN"), std::string::npos) << stored;
  EXPECT_EQ(parse(stored).as_json(), root.as_json()) << stored;
  EXPECT_NE(root.dump().find("T0KEN"), std::string::npos);
  EXPECT_EQ(stored_yaml(text, "r.yaml", {"same=${n}"}).find("T0KEN"), std::string::npos);
  expect_error(Exit::usage, {"found ${env:RETORT_TEST_VARIABLE}"}, [&] { root["alone"].as_int(); });
}

TEST(Yaml, BadReferencesAreRefused) {
  expect_error(Exit::usage, {"r.yaml:1 a", "refers to itself"}, [] { parse("a: ${b}\nb: ${a}\n"); });
  expect_error(Exit::usage, {"refers to itself"}, [] { parse("a: x${a}\n"); });
  expect_error(Exit::usage, {"refers to itself"}, [] { parse("a: {b: {c: \"${a}\"}}\n"); });
  expect_error(Exit::usage, {"${nope.x}", "no such key (\"nope\")"}, [] { parse("a: ${nope.x}\n"); });
  expect_error(Exit::usage, {"RETORT_TEST_UNSET is not set"}, [] { parse("a: ${env:RETORT_TEST_UNSET}\n"); });
  expect_error(Exit::usage, {"cannot be part of a text"}, [] { parse("a: [1]\nb: x${a}\n"); });
  expect_error(Exit::usage, {"without }"}, [] { parse("a: x${b\n"); });
  std::string bomb = "a0: " + std::string(1000, 'x') + "\n";
  for (int i = 1; i < 20; ++i) {
    bomb += fmt::format("a{}: \"", i);
    for (int j = 0; j < 10; ++j) bomb += fmt::format("${{a{}}}", i - 1);
    bomb += "\"\n";
  }
  expect_error(Exit::usage, {"grows without end"}, [&] { parse(bomb); });
}

TEST(Yaml, DumpReadsBackTheSame) {
  const std::string text =
      "name: x\nlr: 5e-4\nquoted: \"12\"\nno: \"no\"\nnothing: null\nempty: \"\"\nlist: [1, [2, 3], {a: b}]\n"
      "template: |\n  first {{ x }}\n\n    second\nodd: \" lead\\ttab\\n\\n\"\nsplit: \"line\\nwithout end\"\n"
      "dollar: $${name}\nutf: \"äß漢 \\u0001\"\ncolon: 'a: b # c'\ndate: \"2024-01-01\"\n";
  const Yaml first = parse(text);
  const Yaml second = Yaml::parse(first.dump(), "dump");
  EXPECT_EQ(first.as_json().dump(), second.as_json().dump()) << first.dump();
  EXPECT_NE(first.dump().find("template: |\n  first {{ x }}"), std::string::npos) << first.dump();
  EXPECT_NE(first.dump().find("lr: 5e-4\n"), std::string::npos);
  const Yaml third = Yaml::parse(Yaml::from_json(first.as_json(), "json").dump(), "dump");
  EXPECT_EQ(third.as_json().dump(), first.as_json().dump());
}

TEST(Yaml, LoadSaysWhichFile) {
  TemporaryFolder folder;
  std::ofstream(folder / "a.yaml") << "a: 1\n";
  const Yaml root = Yaml::load(folder / "a.yaml");
  EXPECT_EQ(root.folder(), folder.path());
  EXPECT_EQ(root["a"].where(), (folder / "a.yaml").string() + ":1 a");
  expect_error(Exit::io, {"missing.yaml", "No such file"}, [&] { Yaml::load(folder / "missing.yaml"); });
  EXPECT_TRUE(parse("").is_null());
}

TEST(Yaml, BentFilesGiveErrorsOnly) {
  const std::string sample =
      "# recipe\nname: &n foldoc\ntrain: {lr: 5e-4, steps: [1, 2], 'q': \"a\\tb\"}\ntext: |\n  two\n  lines\n"
      "other: *n\nref: ${train.lr}\n? key\n: value\nlist:\n  - a\n  -\n    - b\n";
  const std::string bytes = std::string(1, '\0') + "\t\n :-?[]{}&*!|>'\"%@`#,~$.<=\xff\xc3";
  Rng rng(1);
  size_t sound = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = sample;
    for (uint64_t changes = rng.below(4) + 1; changes > 0; --changes) {
      const size_t at = rng.below(text.size());
      switch (rng.below(4)) {
        case 0:
          text[at] = bytes[rng.below(bytes.size())];
          break;
        case 1:
          text.insert(at, 1, bytes[rng.below(bytes.size())]);
          break;
        case 2:
          text.erase(at, rng.below(5));
          break;
        default:
          text.insert(at, text.substr(rng.below(text.size()), rng.below(20)));
          break;
      }
    }
    try {
      const Yaml yaml = parse(text, {"train.lr=1"});
      auto plain = [](const Yaml& y) { return y.as_json().dump(-1, ' ', false, Json::error_handler_t::replace); };
      ASSERT_EQ(plain(Yaml::parse(yaml.dump(), "dump")), plain(yaml)) << text;
      ++sound;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
    }
  }
  EXPECT_GT(sound, 1000u);
}

TEST(Yaml, LongValuesAreShortenedBetweenCharacters) {
  std::string text = "a: ";
  for (int i = 0; i < 60; ++i) text += "é";
  const std::string shown = parse(text)["a"].shown();
  EXPECT_LT(shown.size(), 90u);
  EXPECT_NO_THROW(Json(shown).dump());  // dump() throws on cut UTF-8
}

}  // namespace
}  // namespace retort
