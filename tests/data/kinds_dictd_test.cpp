// DICT databases: FOLDOC as Debian ships it against what Python's gzip finds in it, and damaged files.
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>
#include <map>

#include "core/files.h"
#include "core/hash.h"
#include "data/dataset.h"
#include "data/dictzip.h"
#include "tests/core/support.h"
#include "tests/data/foldoc.h"

namespace retort {
namespace {

std::string number64(uint64_t value) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  do text.insert(text.begin(), digits[value & 63]);
  while (value >>= 6);
  return text;
}

void append(std::string& bytes, uint64_t value, int count) {
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(value >> (8 * i));
}

// Packs as dictzip does: one deflate stream, a full flush after each chunk.
std::string dictzip(const std::string& text, size_t chunk) {
  std::string body, table;
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string buffer(chunk * 2 + 100, '\0');
  size_t chunks = 0;
  auto deflate_part = [&](const char* data, size_t size, int flush) {
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data));
    stream.avail_in = size;
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = buffer.size();
    deflate(&stream, flush);
    body.append(buffer, 0, buffer.size() - stream.avail_out);
    return buffer.size() - stream.avail_out;
  };
  for (size_t at = 0; at < text.size(); at += chunk, ++chunks)
    append(table, deflate_part(text.data() + at, std::min(chunk, text.size() - at), Z_FULL_FLUSH), 2);
  deflate_part(nullptr, 0, Z_FINISH);
  deflateEnd(&stream);

  std::string file("\x1F\x8B\x08\x04\0\0\0\0\x02\x03", 10);
  append(file, 4 + 6 + table.size(), 2);
  file += "RA";
  append(file, 6 + table.size(), 2);
  append(file, 1, 2);
  append(file, chunk, 2);
  append(file, chunks, 2);
  file += table + body;
  append(file, crc32(0, reinterpret_cast<const Bytef*>(text.data()), text.size()), 4);
  append(file, text.size(), 4);
  return file;
}

std::vector<Row> read_all(const std::filesystem::path& path, std::map<std::string, std::string> own = {}) {
  DatasetOptions options{.kind = "dictd", .path = path, .options = own};
  std::vector<Row> rows;
  Stream<Row> stream = open_rows(options);
  for (Row row; stream(row);) rows.push_back(row);
  return rows;
}

TEST(Dictd, FoldocIsWhatPythonFindsInIt) {
  const Json golden = read_json(RETORT_GOLDEN "/foldoc.json");
  const Foldoc foldoc = pull_foldoc();
  if (sha256_file(foldoc.text) != golden["sha256"]) GTEST_SKIP() << "this distribution ships another FOLDOC";
  auto rows = read_all(foldoc.text, {{"index", foldoc.index.string()}});
  EXPECT_EQ(std::ssize(rows), golden["entries"].get<int64_t>());
  std::map<std::string, const Row*> by_first_indexed;
  int64_t same_first = 0;
  for (const Row& row : rows) {
    EXPECT_FALSE(row.fields["definition"].get<std::string>().starts_with("\n"));
    same_first += !row.fields["definition"].get<std::string>().empty();
    for (const auto& word : row.fields["headwords"]) by_first_indexed[word.get<std::string>()] = &row;
  }
  EXPECT_EQ(same_first, std::ssize(rows));
  const std::map<std::string, std::string> written = {
      {"ibm 709", "IBM 709"}, {"ce", "CE"}, {"*lisp", "*LISP"}, {"c++", "C++"}, {"zmodem", "ZMODEM"}};
  ASSERT_EQ(golden["samples"].size(), written.size());
  for (const auto& [word, sample] : golden["samples"].items()) {
    ASSERT_TRUE(by_first_indexed.contains(written.at(word))) << word;
    const Row& row = *by_first_indexed[written.at(word)];
    EXPECT_EQ(row.fields["definition"], sample["definition"]) << word;
    EXPECT_EQ(row.fields["headwords"].size(), sample["headwords"].size()) << word;
  }
  EXPECT_EQ(by_first_indexed["CE"]->fields["headwords"], Json({"IBM Customer Engineer", "CE"}));
}

class SmallDict : public testing::Test {
 protected:
  // Three entries, one of them under two headwords, one without body.
  SmallDict() {
    const std::vector<std::pair<std::vector<std::string>, std::string>> entries = {
        {{"00-database-info"}, "00-database-info\n  made for a test\n"},
        {{"beta", "b"}, "\nBeta\nB\n\n   The second\n     letter.\n\n   Not the last.\n\n"},
        {{"alpha"}, "Alpha\n\n   The first.\n"},
        {{"a very long word"}, "A very\nlong  Word\n   Wrapped, and its\n   a very long word\n"}};
    for (const auto& [words, body] : entries) {
      for (const std::string& word : words)
        index_ += word + "\t" + number64(text_.size()) + "\t" + number64(body.size()) + "\n";
      text_ += body;
    }
  }
  std::filesystem::path write(const std::string& text, const std::string& index) {
    // Not write_atomic: thousands of files need no fsync.
    std::ofstream(folder_ / "small.index") << index;
    std::ofstream(folder_ / "small.dict.dz") << text;
    return folder_ / "small.dict.dz";
  }
  void refused(const std::string& text, const std::string& index, std::vector<std::string> parts) {
    auto path = write(text, index);
    expect_error(Exit::bad_input, parts, [&] { read_all(path); });
  }
  TemporaryFolder folder_;
  std::string text_, index_;
};

TEST_F(SmallDict, HeadwordLinesIndentationAndInfoEntriesGo) {
  auto rows = read_all(write(dictzip(text_, 16), index_));
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].fields, Json({{"headword", "Beta"},
                                  {"headwords", {"Beta", "B"}},
                                  {"definition", "The second\n  letter.\n\nNot the last."}}));
  EXPECT_EQ(rows[1].fields["definition"], "The first.");
  EXPECT_EQ(rows[2].fields["headword"], "A very long Word");
  EXPECT_EQ(rows[2].fields["definition"], "Wrapped, and its\na very long word");
  // Places are written into audits, which hold no text of a row.
  EXPECT_EQ(rows[2].place,
            fmt::format("{}: entry 3 at byte {}", (folder_ / "small.dict.dz").string(), text_.find("A very\nlong")));
}

TEST_F(SmallDict, PlainTextFoldersAndIndexesElsewhereAreRead) {
  auto packed = read_all(write(dictzip(text_, 16), index_));
  auto in_folder = read_all(folder_.path());
  std::filesystem::rename(folder_ / "small.index", folder_ / "other");
  expect_error(Exit::bad_input, {"small.dict.dz", "small.index", "options: {index"}, [&] { read_all(folder_.path()); });
  auto elsewhere = read_all(folder_ / "small.dict.dz", {{"index", folder_ / "other"}});
  std::filesystem::remove(folder_ / "small.dict.dz");
  write_atomic(folder_ / "small.dict", text_);
  auto plain = read_all(folder_ / "small.dict", {{"index", folder_ / "other"}});
  for (const auto& rows : {in_folder, elsewhere, plain}) {
    ASSERT_EQ(rows.size(), packed.size());
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].fields, packed[i].fields);
  }
  write_atomic(folder_ / "second.dict", text_);
  expect_error(Exit::bad_input, {"2 files end in .dict"}, [&] { read_all(folder_.path()); });
}

TEST_F(SmallDict, RangesOfDictzipAreThoseOfTheText) {
  write(dictzip(text_, 7), index_);
  DictText text(folder_ / "small.dict.dz");
  ASSERT_EQ(text.size(), text_.size());
  for (size_t at = 0; at <= text_.size(); ++at)
    for (size_t size : {size_t{0}, size_t{1}, size_t{7}, size_t{20}}) {
      size_t inside = std::min(size, text_.size() - at);
      EXPECT_EQ(text.read(at, inside), text_.substr(at, inside));
    }
  expect_error(Exit::bad_input, {"small.dict.dz", fmt::format("has {}", text_.size())},
               [&] { text.read(text_.size() - 1, 2); });
  expect_error(Exit::bad_input, {"small.dict.dz"}, [&] { text.read(UINT64_MAX, 2); });
}

TEST_F(SmallDict, DamagedDictzipIsRefusedOrReadsTheSame) {
  const std::string whole = dictzip(text_, 16);
  const auto rows = read_all(write(whole, index_));
  for (size_t size = 2; size < whole.size(); ++size) refused(whole.substr(0, size), index_, {"small.dict"});
  size_t found = 0;
  for (size_t at = 2; at < whole.size(); ++at) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ 0x10);
    auto path = write(broken, index_);
    try {
      // Some bits mean nothing (time, padding of empty blocks): then the text must be what it was.
      auto same = read_all(path);
      ASSERT_EQ(same.size(), rows.size()) << "byte " << at;
      for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(same[i].fields, rows[i].fields) << "byte " << at;
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit()), static_cast<int>(Exit::bad_input)) << error.what();
      ++found;
    }
  }
  EXPECT_GT(found, whole.size() * 3 / 4);
}

TEST_F(SmallDict, OrdinaryGzipIsRefusedWithAdvice) {
  std::string gzip("\x1F\x8B\x08\0\0\0\0\0\x02\x03\x03\0\0\0\0\0\0\0\0\0", 20);
  refused(gzip, index_, {"without dictzip's chunk table", "dictzip"});
}

TEST_F(SmallDict, DamagedIndexLinesAreNamed) {
  const std::string text = dictzip(text_, 16);
  refused(text, "alpha\tA\n", {"small.index:1", "headword, offset and size"});
  refused(text, "a\tA\tB\nalpha\tA$\tB\n", {"small.index:2", "\"A$\"", "base-64"});
  refused(text, "alpha\t\tB\n", {"small.index:1", "0 base-64 digits"});
  refused(text, "alpha\tA\tBBBBBBBBBBBB\n", {"small.index:1", "12 base-64 digits"});
  refused(text, "alpha\t//////////\t//////////\n", {"small.index:1", "the text has"});
  refused(text, "alpha\tA\t" + number64(text_.size() + 1) + "\n", {"small.index:1", "the text has"});
  refused(text, "al\xFFpha\tA\tB\n", {"small.index:1", "not UTF-8"});
}

TEST_F(SmallDict, EntriesMustBeUtf8) {
  text_[text_.size() - 3] = '\xFF';
  refused(dictzip(text_, 16), index_, {"small.dict.dz", "entry \"a very long word\"", "not UTF-8"});
}

}  // namespace
}  // namespace retort
