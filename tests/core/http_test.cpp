#include "core/http.h"

#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <fstream>

#include "core/files.h"
#include "core/hash.h"
#include "core/log.h"
#include "core/signals.h"
#include "tests/core/http_server.h"
#include "tests/core/support.h"

namespace retort {
namespace {

std::string some_content(size_t size = 300'000) {
  std::string text(size, 0);
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 2654435761u >> 24);
  return text;
}

struct HttpTest : testing::Test {
  TemporaryFolder folder;
  std::filesystem::path file = folder / "file";
  Progress silent;
  std::string content = some_content();
  std::string sha256 = sha256_hex(content);

  HttpTest() { spdlog::set_level(spdlog::level::off); }  // warnings about attempts
  ~HttpTest() override { spdlog::set_level(spdlog::level::info); }

  HttpResult fetch(const std::string& url, const std::string& expected = "", const std::string& bearer = "") {
    return http_download(
        {.url = url, .shown = "the file", .label = "file", .bearer = bearer, .sha256 = expected, .retry_seconds = 0.01},
        file, silent);
  }
  bool left_behind() const { return std::filesystem::exists(file); }
};

TEST_F(HttpTest, HashesWhatItWrites) {
  HttpServer server([&](const ServerRequest& r) { return serve_file(r, content, "\"1\""); });
  const HttpResult result = fetch(server.url("/a"), sha256);
  EXPECT_EQ(result.sha256, sha256);
  EXPECT_EQ(result.bytes, content.size());
  EXPECT_EQ(read_text(file), content);
  EXPECT_FALSE(std::filesystem::exists(file.string() + ".json")) << "the note about a broken download stays";
}

TEST_F(HttpTest, EmptyFilesArrive) {
  HttpServer server([&](const ServerRequest&) { return ServerReply{}; });
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256_hex(""));
  EXPECT_TRUE(left_behind());
}

TEST_F(HttpTest, TheTokenStaysWithItsOrigin) {
  HttpServer storage([&](const ServerRequest& r) { return serve_file(r, content, "\"1\""); });
  HttpServer hub([&](const ServerRequest& r) {
    if (r.path == "/old") return ServerReply{.status = 307, .headers = {{"Location", "/new"}}};
    return ServerReply{.status = 302,
                       .headers = {{"Location", storage.url("/blob")},
                                   {"X-Linked-Etag", "\"" + sha256 + "\""},
                                   {"X-Linked-Size", std::to_string(content.size())}}};
  });
  EXPECT_EQ(fetch(hub.url("/old"), "", "secret").sha256, sha256);
  ASSERT_EQ(hub.requests().size(), 2u);
  EXPECT_EQ(hub.requests()[0].header("authorization"), "Bearer secret");
  EXPECT_EQ(hub.requests()[1].header("authorization"), "Bearer secret") << "the same origin";
  ASSERT_EQ(storage.requests().size(), 1u);
  EXPECT_EQ(storage.requests()[0].header("authorization"), "") << "another origin must not see the token";
}

TEST_F(HttpTest, ADroppedConnectionIsContinuedByRange) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    if (asked++ == 0) reply.drop_after = content.size() / 2;
    return reply;
  });
  EXPECT_EQ(fetch(server.url("/a"), sha256).bytes, content.size());
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].header("range"), fmt::format("bytes={}-", content.size() / 2));
  EXPECT_EQ(requests[1].header("if-range"), "\"1\"");
  EXPECT_EQ(read_text(file), content);
}

TEST_F(HttpTest, ALaterCallContinuesTheEarlierOne) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    if (asked == 0) reply.drop_after = 100'000;
    if (asked > 0 && asked < 7) reply = {.status = 503};
    ++asked;
    return reply;
  });
  expect_error(Exit::unavailable, {"the file: status 503", "6 attempts", "kept"},
               [&] { fetch(server.url("/a"), sha256); });
  EXPECT_EQ(std::filesystem::file_size(file), 100'000u);
  EXPECT_EQ(fetch(server.url("/a"), sha256).sha256, sha256);
  EXPECT_EQ(server.requests().back().header("range"), "bytes=100000-");
}

TEST_F(HttpTest, AnotherVersionOnTheServerStartsOver) {
  const std::string newer = some_content(200'000) + "newer";
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    if (asked++ > 0) return serve_file(r, newer, "\"2\"");
    ServerReply reply = serve_file(r, content, "\"1\"");
    reply.drop_after = 150'000;
    return reply;
  });
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256_hex(newer));
  EXPECT_EQ(read_text(file), newer);
}

TEST_F(HttpTest, AServerWithoutRangesOrVersionsIsAskedFromTheStart) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest&) {
    ServerReply reply{.body = content};
    if (asked++ < 2) reply.drop_after = 50'000;
    return reply;
  });
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256);
  for (const auto& request : server.requests()) EXPECT_EQ(request.header("range"), "");
}

TEST_F(HttpTest, AFileThatBecameShorterStartsOver) {
  std::ofstream(file) << content << "more";
  write_atomic(file.string() + ".json", "{}");  // overwritten below with the real note
  HttpServer server([&](const ServerRequest& r) { return serve_file(r, content, "\"1\""); });
  write_atomic(file.string() + ".json", fmt::format(R"({{"url": "{}", "version": "\"1\""}})", server.url("/a")));
  EXPECT_EQ(fetch(server.url("/a"), sha256).sha256, sha256);
  EXPECT_EQ(server.requests().size(), 2u) << "416, then the whole file";
}

TEST_F(HttpTest, ALyingContentRangeIsRefused) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    if (asked++ == 0) {
      reply.drop_after = 1000;
    } else {
      reply.headers = {{"Content-Range", "bytes 0-9/10"}};
    }
    return reply;
  });
  expect_error(Exit::unavailable, {"asked for bytes from 1000", "bytes 0-9/10"}, [&] { fetch(server.url("/a")); });
}

TEST_F(HttpTest, RefusalsAreNotRepeated) {
  for (const auto& [status, text] : {std::pair(401, "HF_TOKEN"), std::pair(403, "HF_TOKEN"),
                                     std::pair(404, "no such file"), std::pair(410, "status 410")}) {
    HttpServer server([status = status](const ServerRequest&) {
      return ServerReply{.status = status, .headers = {{"X-Error-Message", "because"}}, .body = "page"};
    });
    expect_error(Exit::unavailable, {fmt::format("status {}: because", status), text},
                 [&] { fetch(server.url("/a")); });
    EXPECT_EQ(server.requests().size(), 1u);
    EXPECT_EQ(std::filesystem::file_size(file), 0u) << "an error's page was written";
  }
  HttpServer server([](const ServerRequest&) { return ServerReply{.status = 403}; });
  expect_error(Exit::unavailable, {"licence"}, [&] { fetch(server.url("/a"), "", "token"); });
}

TEST_F(HttpTest, ServerErrorsAreTriedAgain) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    if (asked++ < 3) return ServerReply{.status = 500, .body = "oops"};
    return serve_file(r, content, "\"1\"");
  });
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256);
  HttpServer broken([&](const ServerRequest&) { return ServerReply{.status = 500}; });
  expect_error(Exit::unavailable, {"status 500", "6 attempts"}, [&] { fetch(broken.url("/b")); });
  EXPECT_EQ(broken.requests().size(), 6u);
}

TEST_F(HttpTest, RetryAfterIsObeyed) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    if (asked++ == 0) return ServerReply{.status = 429, .headers = {{"Retry-After", "1"}}};
    return serve_file(r, content, "\"1\"");
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(950));
  HttpServer busy([](const ServerRequest&) {
    return ServerReply{.status = 429, .headers = {{"Retry-After", "9999"}}};
  });
  expect_error(Exit::unavailable, {"status 429", "wait 9999 s"}, [&] { fetch(busy.url("/a")); });
}

TEST_F(HttpTest, AWrongLengthIsFound) {
  HttpServer longer(
      [&](const ServerRequest&) { return ServerReply{.body = content, .claimed_length = content.size() + 9}; });
  expect_error(Exit::unavailable, {"the file", "6 attempts"}, [&] { fetch(longer.url("/a")); });
  HttpServer shorter([&](const ServerRequest&) { return ServerReply{.body = content, .claimed_length = 10}; });
  expect_error(Exit::unavailable, {"wrong SHA-256"}, [&] { fetch(shorter.url("/a"), sha256); });
  HttpServer linked([&](const ServerRequest&) {
    return ServerReply{.headers = {{"X-Linked-Size", "12"}}, .body = content};
  });
  expect_error(Exit::unavailable, {"expected 12 bytes, found 300000"}, [&] { fetch(linked.url("/a")); });
}

TEST_F(HttpTest, AWrongHashDeletesTheFile) {
  HttpServer server([&](const ServerRequest&) { return ServerReply{.body = "other"}; });
  expect_error(Exit::unavailable, {"expected " + sha256, "found " + sha256_hex("other"), "deleted"},
               [&] { fetch(server.url("/a"), sha256); });
  EXPECT_FALSE(left_behind());
  HttpServer hub([&](const ServerRequest&) {
    return ServerReply{.headers = {{"X-Linked-Etag", "\"" + sha256 + "\""}}, .body = "other"};
  });
  expect_error(Exit::unavailable, {"expected " + sha256}, [&] { fetch(hub.url("/a")); });
  EXPECT_FALSE(left_behind());
}

TEST_F(HttpTest, TheStorageCannotReplaceTheHubsHash) {
  HttpServer storage([&](const ServerRequest&) {
    return ServerReply{.headers = {{"X-Linked-Etag", sha256_hex("evil")}}, .body = "evil"};
  });
  HttpServer hub([&](const ServerRequest&) {
    return ServerReply{.status = 302,
                       .headers = {{"Location", storage.url("/x")}, {"X-Linked-Etag", "\"" + sha256 + "\""}}};
  });
  expect_error(Exit::unavailable, {"wrong SHA-256"}, [&] { fetch(hub.url("/a")); });
}

TEST_F(HttpTest, UnsafeRedirectsAreRefused) {
  std::string location = "http://example.invalid/a";
  HttpServer server([&](const ServerRequest&) {
    return ServerReply{.status = 302, .headers = {{"Location", location}}};
  });
  expect_error(Exit::unavailable, {"plain http on example.invalid"}, [&] { fetch(server.url("/a")); });
  location = "file:///etc/passwd";
  expect_error(Exit::unavailable, {"file://"}, [&] { fetch(server.url("/a")); });
  location = "/again";
  expect_error(Exit::unavailable, {"more than 10 redirects"}, [&] { fetch(server.url("/a")); });
  expect_error(Exit::unavailable, {"plain http"}, [&] { fetch("http://example.invalid/a"); });
}

TEST_F(HttpTest, TooMuchIsRefused) {
  HttpServer server([&](const ServerRequest&) { return ServerReply{.body = content}; });
  expect_error(Exit::unavailable, {"more than the 1000 bytes"}, [&] {
    http_download({.url = server.url("/a"), .shown = "listing", .label = "", .bearer = "", .sha256 = "", .limit = 1000},
                  file, silent);
  });
}

TEST_F(HttpTest, AFullDiskIsAnInputOutputError) {
  HttpServer server([&](const ServerRequest& r) { return serve_file(r, content, "\"1\""); });
  // /dev/full opens, and says "no space" to every write.
  std::filesystem::create_symlink("/dev/full", file);
  expect_error(Exit::io, {"the file: cannot write", "No space left"}, [&] { fetch(server.url("/a")); });
}

TEST_F(HttpTest, NobodyThereIsUnavailable) {
  std::string url;
  {
    HttpServer server([](const ServerRequest&) { return ServerReply{}; });
    url = server.url("/a");
  }
  expect_error(Exit::unavailable, {"the file", "connect"}, [&] { fetch(url); });
}

TEST_F(HttpTest, ASignalStopsAndKeepsWhatCame) {
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    reply.pause_ms = 100;
    return reply;
  });
  const pid_t child = fork();
  if (child == 0) {
    catch_stop_signals();
    try {
      fetch(server.url("/a"));
    } catch (const Error& error) {
      _exit(static_cast<int>(error.exit()));
    }
    _exit(0);
  }
  while (!std::filesystem::exists(file) || std::filesystem::file_size(file) < 40'000) usleep(10'000);
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(Exit::retry));
  EXPECT_GE(std::filesystem::file_size(file), 40'000u);
  EXPECT_LT(std::filesystem::file_size(file), content.size());
  EXPECT_EQ(fetch(server.url("/a")).sha256, sha256);
  EXPECT_NE(server.requests().back().header("range"), "");
}

TEST_F(HttpTest, ProgressSeesBytesAndTheResumedPart) {
  std::atomic<int> asked = 0;
  HttpServer server([&](const ServerRequest& r) {
    ServerReply reply = serve_file(r, content, "\"1\"");
    if (asked++ == 0) reply.drop_after = 100'000;
    return reply;
  });
  std::vector<ProgressState> states;
  Progress progress([&](const ProgressState& state) { states.push_back(state); });
  http_download({.url = server.url("/a"),
                 .shown = "the file",
                 .label = "file",
                 .bearer = "",
                 .sha256 = "",
                 .retry_seconds = 0.01},
                file, progress);
  ASSERT_FALSE(states.empty());
  EXPECT_EQ(states.back().done, content.size());
  EXPECT_EQ(states.back().total, content.size());
  EXPECT_EQ(states.back().first, 100'000u);
  EXPECT_TRUE(states.back().finished && states.back().bytes);
  EXPECT_EQ(states.back().task, "file");
}

TEST_F(HttpTest, PostsJson) {
  HttpServer server([](const ServerRequest&) { return ServerReply{.status = 204}; });
  const std::string json = "{\"text\": \"" + std::string(300'000, 'x') + "\"}";
  http_post(server.url("/hook"), json);
  ASSERT_EQ(server.requests().size(), 1u);
  const ServerRequest request = server.requests().front();
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/hook");
  EXPECT_EQ(request.header("content-type"), "application/json");
  EXPECT_EQ(request.body, json);
}

TEST_F(HttpTest, APostIsTriedAgainWhenTheServerMayRecover) {
  std::atomic<int> calls = 0;
  HttpServer server([&](const ServerRequest&) { return ServerReply{.status = ++calls < 3 ? 503 : 200}; });
  http_post(server.url("/hook"), "{}", 0.01);
  EXPECT_EQ(calls, 3);
  HttpServer broken([&](const ServerRequest&) { return ServerReply{.status = 503}; });
  expect_error(Exit::unavailable, {"4 attempts", "status 503"}, [&] { http_post(broken.url("/hook"), "{}", 0.01); });
  HttpServer strict([&](const ServerRequest&) { return ServerReply{.status = 404}; });
  expect_error(Exit::unavailable, {"1 attempts", "status 404"}, [&] { http_post(strict.url("/hook"), "{}", 0.01); });
  EXPECT_EQ(strict.requests().size(), 1u);
}

TEST_F(HttpTest, NothingIsPostedInTheClear) {
  expect_error(Exit::usage, {"http://example.org", "https"}, [] { http_post("http://example.org/hook", "{}"); });
  expect_error(Exit::usage, {"ftp://"}, [] { http_post("ftp://localhost/hook", "{}"); });
}

TEST_F(HttpTest, AWebhooksSecretIsNotShown) {
  HttpServer strict([](const ServerRequest&) { return ServerReply{.status = 404}; });
  const auto message = [](const std::string& url) -> std::string {
    try {
      http_post(url, "{}", 0.01);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(strict.url("/services/T0KEN?k=T0KEN")), strict.url() + ": not delivered (1 attempts): status 404");
  for (const char* url : {"http://me:T0KEN@example.org/T0KEN", "ftp://example.org?T0KEN", "T0KEN@nowhere"}) {
    const std::string shown = message(url);
    EXPECT_NE(shown, "");
    EXPECT_EQ(shown.find("T0KEN"), std::string::npos) << shown;
  }
}

}  // namespace
}  // namespace retort
