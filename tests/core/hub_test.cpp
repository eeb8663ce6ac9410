// hf://: whole models, single files, tokens and refusals, against a local server.
#include <map>

#include "core/files.h"
#include "core/hash.h"
#include "tests/core/http_server.h"
#include "tests/core/sources_fixture.h"

namespace retort {
namespace {

namespace fs = std::filesystem;

struct HubTest : SourcesTest {
  std::map<std::string, std::string> files = {{"config.json", "{}"},
                                              {"tokenizer.json", "{\"v\": 1}"},
                                              {"model.safetensors", "weights"},
                                              {"pytorch_model.bin", "pickle"},
                                              {"onnx/model.onnx", "onnx"}};
  std::string commit = std::string(40, 'c');
  HttpServer storage{[this](const ServerRequest& r) { return serve_file(r, files[r.path.substr(1)], "\"1\""); }};
  HttpServer hub{[this](const ServerRequest& r) { return answer(r); }};

  HubTest() { setenv("HF_ENDPOINT", (hub.url() + "/").c_str(), 1); }

  ServerReply answer(const ServerRequest& request) {
    if (request.path == "/api/models/org/name/revision/main") {
      std::string siblings;
      for (const auto& [name, content] : files)
        siblings += fmt::format("{}{{\"rfilename\": \"{}\"}}", siblings.empty() ? "" : ",", name);
      return {.body = fmt::format("{{\"sha\": \"{}\", \"siblings\": [{}]}}", commit, siblings)};
    }
    for (const auto& [name, content] : files) {
      if (request.path != fmt::format("/org/name/resolve/{}/{}", commit, name) &&
          request.path != "/org/name/resolve/main/" + name) {
        continue;
      }
      if (!name.ends_with(".safetensors"))
        return serve_file(request, content, "\"0123456789012345678901234567890123456789\"");
      return {.status = 302,
              .headers = {{"Location", storage.url("/" + name)}, {"X-Linked-Etag", "\"" + sha256_hex(content) + "\""}}};
    }
    return {.status = 404};
  }
};

TEST_F(HubTest, AWholeModelIsAFolderOfWhatMatters) {
  const fs::path path = get("hf://org/name");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(read_text(path / "model.safetensors"), "weights");
  EXPECT_EQ(path.filename(), "name");
  const size_t asked = hub.requests().size();
  EXPECT_EQ(get("hf://org/name"), path);
  EXPECT_EQ(hub.requests().size(), asked) << "the cached folder asks nobody";
  fs::remove(path / "config.json");
  EXPECT_EQ(get("hf://org/name"), path);
  EXPECT_EQ(read_text(path / "config.json"), "{}") << "a missing link is made anew";
  expect_error(Exit::usage, {"@<commit>"}, [&] { get("hf://org/name", std::string(64, 'a'), true); });
}

TEST_F(HubTest, ShardsComeFromTheIndex) {
  files.erase("model.safetensors");
  files["model-1.safetensors"] = "one";
  files["model-2.safetensors"] = "two";
  files["consolidated.safetensors"] = "the same again";
  files["model.safetensors.index.json"] =
      R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}})";
  const fs::path path = get("hf://org/name");
  EXPECT_EQ(read_text(path / "model-2.safetensors"), "two");
  EXPECT_TRUE(fs::exists(path / "model-1.safetensors"));
  EXPECT_FALSE(fs::exists(path / "consolidated.safetensors"));
}

TEST_F(HubTest, AnEvilIndexLeavesTheFolderAlone) {
  files.erase("model.safetensors");
  for (const char* evil : {"../../evil", "/etc/passwd", "missing.safetensors"}) {
    files["model.safetensors.index.json"] = fmt::format(R"({{"weight_map": {{"a": "{}"}}}})", evil);
    if (std::string(evil).starts_with("..")) files[evil] = "evil";
    expect_error(Exit::unavailable, {"the index names the shard", evil}, [&] { get("hf://org/name", "", true); });
  }
  files["model.safetensors.index.json"] = R"({"weight_map": [1]})";
  expect_error(Exit::bad_input, {"weight_map"}, [&] { get("hf://org/name", "", true); });
}

TEST_F(HubTest, ARepositoryOfGgufFilesNamesThem) {
  files = {{"a.Q4_K_M.gguf", "x"}, {"README.md", "x"}};
  expect_error(Exit::unavailable, {"no safetensors", "hf://org/name@main/a.Q4_K_M.gguf"},
               [&] { get("hf://org/name"); });
  EXPECT_EQ(read_text(get("hf://org/name@main/a.Q4_K_M.gguf")), "x");
  EXPECT_EQ(get("hf://org/name@main/a.Q4_K_M.gguf").filename(), "a.Q4_K_M.gguf");
}

TEST_F(HubTest, TheTokenGoesToTheHubAlone) {
  setenv("HF_TOKEN", "hf_secret", 1);
  get("hf://org/name/model.safetensors");
  EXPECT_EQ(hub.requests()[0].header("authorization"), "Bearer hf_secret");
  ASSERT_EQ(storage.requests().size(), 1u);
  EXPECT_EQ(storage.requests()[0].header("authorization"), "");
}

TEST_F(HubTest, DataSetsGiveSingleFiles) {
  HttpServer sets([&](const ServerRequest& r) {
    return r.path == "/datasets/org/name/resolve/v1.0/train.jsonl" ? serve_file(r, "rows", "\"1\"")
                                                                   : ServerReply{.status = 404};
  });
  setenv("HF_ENDPOINT", sets.url().c_str(), 1);
  EXPECT_EQ(read_text(get("hf://datasets/org/name@v1.0/train.jsonl")), "rows");
}

TEST_F(HubTest, RefusalsAndSlipsSayWhatToDo) {
  expect_error(Exit::unavailable, {"hf://org/name/none.json", "status 404"}, [&] { get("hf://org/name/none.json"); });
  expect_error(Exit::usage, {"name one file of the data set"}, [&] { get("hf://datasets/org/name"); });
  for (const char* uri : {"hf://name", "hf://org/name@", "hf://../..", "hf://org/name@a b"}) {
    expect_error(Exit::usage, {"org/name[@revision][/path/to/file]"}, [&] { get(uri); });
  }
  commit = "../../evil";
  expect_error(Exit::bad_input, {"the hub's commit"}, [&] { get("hf://org/name"); });
}

}  // namespace
}  // namespace retort
