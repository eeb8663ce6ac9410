// retort pull and retort cache, as a shell sees them.
#include <cstdlib>
#include <fstream>

#include "core/files.h"
#include "core/hash.h"
#include "core/process.h"
#include "tests/core/http_server.h"
#include "tests/core/support.h"

namespace retort {
namespace {

struct PullCommand : testing::Test {
  TemporaryFolder folder;
  HttpServer server{[](const ServerRequest& r) {
    return r.path == "/none" ? ServerReply{.status = 404} : serve_file(r, "content of " + r.path, "\"1\"");
  }};
  PullCommand() { setenv("RETORT_CACHE", (folder / "cache").c_str(), 1); }
  ~PullCommand() override { unsetenv("RETORT_CACHE"); }
  static ProcessResult retort(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), RETORT_PROGRAM);
    return run_program(arguments);
  }
};

TEST_F(PullCommand, PrintsThePathAlone) {
  const ProcessResult result = retort({"pull", server.url("/a.jsonl")});
  EXPECT_EQ(result.status, 0) << result.errors;
  ASSERT_TRUE(result.output.ends_with("/a.jsonl\n")) << result.output;
  EXPECT_EQ(read_text(result.output.substr(0, result.output.size() - 1)), "content of /a.jsonl");
}

TEST_F(PullCommand, FailuresHaveTheirExitCodes) {
  ProcessResult result = retort({"pull", server.url("/none")});
  EXPECT_EQ(result.status, 69);
  EXPECT_EQ(result.output, "");
  EXPECT_NE(result.errors.find("status 404"), std::string::npos) << result.errors;
  result = retort({"pull", server.url("/a"), "--sha256", std::string(64, '0')});
  EXPECT_EQ(result.status, 69);
  EXPECT_NE(result.errors.find("found " + sha256_hex("content of /a")), std::string::npos) << result.errors;
  EXPECT_EQ(retort({"pull", "pypi:nothing"}).status, 64);
  EXPECT_EQ(retort({"pull"}).status, 64);
}

TEST_F(PullCommand, CacheListsVerifiesAndPrunes) {
  const std::string output = retort({"pull", server.url("/a.bin")}).output;
  const std::string path = output.substr(0, output.find('\n'));
  EXPECT_NE(retort({"cache", "list"}).output.find(server.url("/a.bin")), std::string::npos);
  EXPECT_EQ(retort({"cache", "verify"}).status, 0);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  std::ofstream(path) << "damaged";
  EXPECT_EQ(retort({"cache", "verify"}).status, 65);
  retort({"pull", server.url("/a.bin")});
  EXPECT_EQ(read_text(path), "content of /a.bin");
  EXPECT_EQ(retort({"cache", "prune", "--older-than", "1"}).output, "0 B became free\n");
  EXPECT_EQ(retort({"cache", "prune", "--all"}).output, "17 B became free\n");
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace retort
