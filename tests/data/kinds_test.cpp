// The file formats jsonl, csv and text: what they read, what they refuse and where, and that they stream.
#include <gtest/gtest.h>

#include <fstream>

#include "core/files.h"
#include "core/memory.h"
#include "data/dataset.h"
#include "data/text_input.h"
#include "tests/core/support.h"

namespace retort {
namespace {

std::vector<Row> read_all(const DatasetOptions& options) {
  std::vector<Row> rows;
  Stream<Row> stream = open_rows(options);
  for (Row row; stream(row);) rows.push_back(row);
  return rows;
}

class Kinds : public testing::Test {
 protected:
  DatasetOptions file(const std::string& kind, const std::string& content) {
    DatasetOptions options{.kind = kind, .path = folder_ / "data.txt"};
    write_atomic(options.path, content);
    return options;
  }
  void refused(const std::string& kind, const std::string& content, std::vector<std::string> parts) {
    DatasetOptions options = file(kind, content);
    parts.push_back("data.txt");
    expect_error(Exit::bad_input, parts, [&] { read_all(options); });
  }
  TemporaryFolder folder_;
};

TEST_F(Kinds, JsonlGivesObjectsWithTheirLine) {
  auto rows = read_all(file("jsonl", "\xEF\xBB\xBF{\"text\": \"a\"}\r\n\n{\"text\": \"\\u00e9\", \"n\": 2}"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, Json({{"text", "a"}}));
  EXPECT_TRUE(rows[0].place.ends_with("data.txt:1"));
  EXPECT_EQ(rows[1].fields["text"], "é");
  EXPECT_EQ(rows[1].fields["n"], 2);
  EXPECT_TRUE(rows[1].place.ends_with("data.txt:3"));
}

TEST_F(Kinds, FieldsAreRenamedInRowsAndInTheirMessages) {
  DatasetOptions options =
      file("jsonl", R"({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]})");
  options.fields = {{"messages", "conversations"}, {"role", "from"}, {"content", "value"}};
  Stream<Chat> chats = open_chats(options);
  Chat chat;
  ASSERT_TRUE(chats(chat));
  ASSERT_EQ(chat.messages.size(), 2u);
  EXPECT_EQ(chat.messages[0].role, "user");
  EXPECT_EQ(chat.messages[1].role, "assistant");
  EXPECT_EQ(chat.messages[1].content, "ho");
  EXPECT_FALSE(chats(chat));
}

TEST_F(Kinds, JsonlRefusesBadLinesByNumber) {
  refused("jsonl", "{\"a\": 1}\n{\"a\": \n", {":2"});
  refused("jsonl", "{\"a\": 1}\n[1]\n", {":2", "expected an object", "array"});
  refused("jsonl", "{\"a\": 1}\n{\"a\": \"\xFF\"}\n", {":2", "byte 8", "0xFF", "not UTF-8"});
  refused("jsonl", "{\"a\": 1} {\"a\": 2}\n", {":1"});
  refused("jsonl", std::string(100000, '[') + "\n", {":1"});
  refused("jsonl", "{\"a\": \"" + std::string(kMaxRecordBytes, 'x') + "\"}\n", {":1", "longer than"});
}

TEST_F(Kinds, ChatsNeedKnownShapesAndRoles) {
  auto refuse = [&](const std::string& line, std::vector<std::string> parts) {
    DatasetOptions options = file("jsonl", line);
    parts.push_back("data.txt:1");
    expect_error(Exit::bad_input, parts, [&] {
      Stream<Chat> chats = open_chats(options);
      for (Chat chat; chats(chat);) {
      }
    });
  };
  refuse(R"({"question": "q", "answer": "a"})", {"question, answer", "`fields:`", "`task:`"});
  refuse(R"({"text": "q", "prompt": "a", "completion": "b"})", {"exactly one of"});
  refuse(R"({"prompt": "a"})", {"\"completion\" is missing"});
  refuse(R"({"prompt": "a", "completion": 3})", {"\"completion\" is number"});
  refuse(R"({"messages": []})", {"\"messages\" is empty"});
  refuse(R"({"messages": "hi"})", {"\"messages\" is string"});
  refuse(R"({"messages": ["hi"]})", {"a message is string"});
  refuse(R"({"messages": [{"role": "robot", "content": "x"}]})", {"\"robot\"", "system, user, assistant, tool"});
}

TEST_F(Kinds, PromptAndCompletionMakeAChatAndTextStaysText) {
  Chat chat;
  ASSERT_TRUE(open_chats(file("jsonl", R"({"system": "s", "prompt": "p", "completion": "c"})"))(chat));
  ASSERT_EQ(chat.messages.size(), 3u);
  EXPECT_EQ(chat.messages[0].content + chat.messages[1].content + chat.messages[2].content, "spc");
  ASSERT_TRUE(open_chats(file("jsonl", R"({"text": "plain"})"))(chat));
  EXPECT_EQ(chat.text, "plain");
  EXPECT_TRUE(chat.messages.empty());
}

TEST_F(Kinds, CsvFollowsRfc4180) {
  auto rows = read_all(file("csv", "name,note\r\nplain,1\r\n\"quo\"\"ted\",\"a,b\r\nc\"\r\n\r\n,\"\"\r\nlast,é"));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].fields, Json({{"name", "plain"}, {"note", "1"}}));
  EXPECT_EQ(rows[1].fields, Json({{"name", "quo\"ted"}, {"note", "a,b\nc"}}));
  EXPECT_TRUE(rows[1].place.ends_with(":3"));
  EXPECT_EQ(rows[2].fields, Json({{"name", ""}, {"note", ""}}));
  EXPECT_TRUE(rows[2].place.ends_with(":6"));
  EXPECT_EQ(rows[3].fields["note"], "é");
}

TEST_F(Kinds, CsvTakesOtherDelimiters) {
  DatasetOptions options = file("csv", "a\tb,c\n1\t2,3\n");
  options.options["delimiter"] = "tab";
  EXPECT_EQ(read_all(options).at(0).fields, Json({{"a", "1"}, {"b,c", "2,3"}}));
  options.options["delimiter"] = ";;";
  expect_error(Exit::usage, {"delimiter", ";;", "one character"}, [&] { open_rows(options); });
}

TEST_F(Kinds, CsvRefusesRaggedAndBrokenRowsByLine) {
  refused("csv", "", {"empty", "header"});
  refused("csv", "a,b,a\n", {":1", "\"a\" twice"});
  refused("csv", "a,,b\n", {":1", "empty name"});
  refused("csv", "a,b\n1,2\n1,2,3\n", {":3", "3 cells", "header has 2"});
  refused("csv", "a,b\n1\n", {":2", "1 cells"});
  refused("csv", "a,b\n1,x\"y\n", {":2", "quote within"});
  refused("csv", "a,b\n1,\"x\"y\n", {":2", "after a closing quote"});
  refused("csv", "a,b\n1,\"x\ny\n", {":2", "not closed"});
  refused("csv", "a,b\n1,\xC0\x80\n", {":2", "not UTF-8"});
  refused("csv", "a\n" + std::string(5000, ',') + "\n", {":2", "more than 4096"});
}

TEST_F(Kinds, TextGivesParagraphsLinesOrFiles) {
  const std::string content = "\n one\ntwo\n\n\nthree  \n\n";
  DatasetOptions options = file("text", content);
  auto texts = [&](const char* unit) {
    options.options["unit"] = unit;
    std::vector<std::string> found;
    for (const Row& row : read_all(options)) found.push_back(row.fields["text"]);
    return found;
  };
  EXPECT_EQ(texts("paragraph"), (std::vector<std::string>{" one\ntwo", "three  "}));
  EXPECT_EQ(texts("line"), (std::vector<std::string>{" one", "two", "three  "}));
  EXPECT_EQ(texts("file"), (std::vector<std::string>{" one\ntwo\n\n\nthree  "}));
  EXPECT_TRUE(read_all(options).at(0).place.ends_with("data.txt:2"));
}

TEST_F(Kinds, TextReadsAFolderInOrderOfName) {
  write_atomic(folder_ / "b.txt", "second");
  write_atomic(folder_ / "a.txt", "first");
  write_atomic(folder_ / "c.txt", "\n");
  DatasetOptions options{.kind = "text", .path = folder_.path(), .options = {{"unit", "file"}}};
  auto rows = read_all(options);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, Json({{"text", "first"}, {"file", "a.txt"}}));
  EXPECT_EQ(rows[1].fields["text"], "second");
}

TEST_F(Kinds, MissingFilesAndUnknownKindsAreErrors) {
  DatasetOptions options{.kind = "jsonl", .path = folder_ / "nothing"};
  expect_error(Exit::io, {"nothing", "No such file"}, [&] { open_rows(options); });
  options.kind = "parquet";
  expect_error(Exit::usage, {"parquet", "csv, dictd, jsonl, recorded, text"}, [&] { open_rows(options); });
  options.kind = "csv";
  options.path = folder_.path();
  expect_error(Exit::bad_input, {"is a folder"}, [&] { open_rows(options); });
}

TEST_F(Kinds, TheHashFollowsContentAndOptionsNotThePlace) {
  DatasetOptions options = file("jsonl", "{\"text\": \"a\"}\n");
  const std::string first = dataset_hash(options);
  std::filesystem::rename(options.path, folder_ / "moved");
  options.path = folder_ / "moved";
  EXPECT_EQ(dataset_hash(options), first);
  options.limit = 3;
  EXPECT_NE(dataset_hash(options), first);
  options.limit.reset();
  write_atomic(options.path, "{\"text\": \"b\"}\n");
  EXPECT_NE(dataset_hash(options), first);
}

TEST_F(Kinds, OptionsAreCheckedWhereTheyStand) {
  auto parse = [](const std::string& text) { return from_yaml<DatasetOptions>(Yaml::parse(text, "r.yaml")); };
  EXPECT_EQ(parse("{kind: text, path: x, options: {unit: line}}").options.at("unit"), "line");
  expect_error(Exit::usage, {"r.yaml:1", "unit", "word", "paragraph"},
               [&] { parse("{kind: text, path: x, options: {unit: word}}"); });
  expect_error(Exit::usage, {"r.yaml:1", "delimeter", "did you mean delimiter"},
               [&] { parse("{kind: csv, path: x, options: {delimeter: ';'}}"); });
  expect_error(Exit::usage, {"`jsonl` has no options"},
               [&] { parse("{kind: jsonl, path: x, options: {unit: line}}"); });
  expect_error(Exit::usage, {"kind", "josnl", "did you mean jsonl"}, [&] { parse("{kind: josnl, path: x}"); });
  expect_error(Exit::usage, {"split", "test"}, [&] { parse("{kind: csv, path: x, split: test}"); });
}

TEST_F(Kinds, MemoryDoesNotGrowWithTheFile) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer keeps what was freed";
#endif
  const std::string filler(980, 'x');
  DatasetOptions options{.kind = "jsonl", .path = folder_ / "big.jsonl", .limit = 50};
  {
    std::ofstream big(options.path);
    for (int i = 0; i < 50000; ++i) big << "{\"text\": \"" << i << filler << "\"}\n";
  }
  ASSERT_GT(std::filesystem::file_size(options.path), 45u << 20);
  const uint64_t before = resident_bytes();
  uint64_t peak = before;
  int64_t read = 0, kept = 0;
  Stream<Row> rows = open_rows(options);
  for (Row row; rows(row); ++read)
    if (read % 500 == 0) peak = std::max(peak, resident_bytes());
  Stream<Chat> chats = open_chats(options);
  for (Chat chat; chats(chat); ++kept) peak = std::max(peak, resident_bytes());
  EXPECT_EQ(read, 50000);
  EXPECT_EQ(kept, 50);
  EXPECT_LT(peak - before, 8u << 20);
}

TEST(TextInput, Utf8IsCheckedByRfc3629) {
  EXPECT_FALSE(invalid_utf8("a é € 😀"));
  EXPECT_EQ(invalid_utf8("ab\x80"), 2u);
  EXPECT_EQ(invalid_utf8("\xC1\x81"), 0u);          // overlong
  EXPECT_EQ(invalid_utf8("\xE0\x80\x80"), 0u);      // overlong
  EXPECT_EQ(invalid_utf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(invalid_utf8("\xF4\x90\x80\x80"), 0u);  // past U+10FFFF
  EXPECT_EQ(invalid_utf8("x\xE2\x82"), 1u);         // cut short
}

TEST(TextInput, TextIsCutAtWhiteSpaceAndNeverWithinACharacter) {
  EXPECT_EQ(cut_text("one two three", 9), "one two");
  EXPECT_EQ(cut_text("one two three", 7), "one two");
  EXPECT_EQ(cut_text("one two", 7), "one two");
  EXPECT_EQ(cut_text("ééééé", 3), "ééé");
  EXPECT_EQ(cut_text("a bbbbbbbbbbbbbb", 10), "a bbbbbbbb");  // the space would cost more than half
}

}  // namespace
}  // namespace retort
