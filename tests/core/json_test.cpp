#include "core/json.h"

#include <chrono>
#include <fstream>

#include "core/files.h"
#include "tests/core/support.h"

namespace retort {
namespace {

Json parse(const std::string& text) { return parse_json(text, "a.json"); }

TEST(Json, KeepsValuesAndOrder) {
  const std::string text = R"({"z":[1,-2,18446744073709551615,1.5,"é",true,null,{}],"a":{"b":[[]]}})";
  EXPECT_EQ(parse(text).dump(), text);
  EXPECT_EQ(parse("3").dump(), "3");
}

TEST(Json, SyntaxErrorsSayLineAndColumn) {
  expect_error(Exit::bad_input, {"a.json: not valid JSON: parse error at line 2, column 7"},
               [] { parse("{\n \"a\": x}"); });
  for (const char* text :
       {"", "{", "[1,", "{\"a\" 1}", "\"\xff\"", "1e999", "nul", "[1] 2", "{\"a\":1,}", "'a'", "\"\\ud800\""}) {
    expect_error(Exit::bad_input, {"a.json"}, [&] { parse(text); });
  }
  expect_error(Exit::bad_input, {" …"}, [] { parse("\"" + std::string(1'000'000, 'x')); });
}

TEST(Json, DuplicateKeysAreRefused) {
  expect_error(Exit::bad_input, {"key \"a\" stands twice"}, [] { parse(R"({"a":1,"b":2,"a":3})"); });
  EXPECT_NO_THROW(parse(R"({"a":{"a":1},"b":{"a":1}})"));
}

TEST(Json, DeepNestingIsRefused) {
  expect_error(Exit::bad_input, {"nested deeper than 200"}, [] { parse(std::string(5'000'000, '[')); });
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  expect_error(Exit::bad_input, {"nested deeper"}, [&] { parse(objects); });
  EXPECT_NO_THROW(parse(std::string(200, '[') + std::string(200, ']')));
}

TEST(Json, AnObjectOfManyKeysIsReadInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += fmt::format("{}\"token {}\":{}", i ? "," : "", i, i);
  text += "}";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse(text).size(), 300'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));  // quadratic: minutes
}

TEST(JsonGet, NamesKeyAndType) {
  const Json json = parse(R"({"i":3,"f":1.5,"b":true,"s":"x","big":18446744073709551615,"neg":-1,"n":null,"l":[1,2]})");
  EXPECT_EQ(json_get<int64_t>(json, "i", "w"), 3);
  EXPECT_EQ(json_get<double>(json, "i", "w"), 3.0);
  EXPECT_EQ(json_get<std::vector<int64_t>>(json, "l", "w").size(), 2u);
  EXPECT_EQ(json_get<int64_t>(json, "none", "w", 7), 7);
  EXPECT_EQ(json_get<int64_t>(json, "n", "w", 7), 7);
  expect_error(Exit::bad_input, {"w: key \"none\" is missing"}, [&] { json_get<int64_t>(json, "none", "w"); });
  for (const char* key : {"f", "b", "s", "big", "n", "l"}) {
    expect_error(Exit::bad_input, {"wrong type", key}, [&] { json_get<int64_t>(json, key, "w"); });
  }
  expect_error(Exit::bad_input, {"wrong type"}, [&] { json_get<uint64_t>(json, "neg", "w"); });
  expect_error(Exit::bad_input, {"wrong type"}, [&] { json_get<bool>(json, "i", "w"); });
  expect_error(Exit::bad_input, {"wrong type"}, [&] { json_get<double>(json, "b", "w"); });
  expect_error(Exit::bad_input, {"wrong type"}, [&] { json_get<std::string>(json, "i", "w"); });
  expect_error(Exit::bad_input, {"expected an object, found array"}, [&] { json_get<int>(json["l"], "a", "w"); });
}

TEST(WriteJson, WritesInvalidTextAndReadsBack) {
  TemporaryFolder folder;
  write_json(folder / "a.json", {{"text", "cut \xe6\xbc"}, {"n", 1}});
  EXPECT_EQ(read_json(folder / "a.json")["n"], 1);
  EXPECT_EQ(read_text(folder / "a.json").substr(0, 5), "{\n  \"");
  expect_error(Exit::io, {"none.json"}, [&] { read_json(folder / "none.json"); });
}

}  // namespace
}  // namespace retort
