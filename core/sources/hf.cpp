// Files and whole models of a Hugging Face hub. HF_ENDPOINT is another hub, HF_TOKEN opens private and gated models.
#include <re2/re2.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>

#include "core/cache.h"
#include "core/error.h"
#include "core/files.h"
#include "core/http.h"
#include "core/json.h"
#include "core/source_kind.h"

namespace retort {
namespace {

constexpr const char* kForm = "hf://[datasets/]org/name[@revision][/path/to/file]";

bool accepts(const std::string& uri) { return uri.starts_with("hf://"); }

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

std::string escape(const std::string& path) {
  std::string result;
  for (unsigned char c : path) {
    if (std::isalnum(c) || std::string_view("-._~/").find(static_cast<char>(c)) != std::string_view::npos) {
      result += static_cast<char>(c);
    } else {
      result += fmt::format("%{:02X}", c);
    }
  }
  return result;
}

HttpRequest request_of(const std::string& path, const Source& source, const PullOptions& options) {
  std::string endpoint = variable("HF_ENDPOINT", "https://huggingface.co");
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return {.url = endpoint + path,
          .shown = source.uri,
          .label = source.name.empty() ? source.uri : source.name,
          .bearer = variable("HF_TOKEN", ""),
          .sha256 = source.sha256,
          .retry_seconds = options.retry_seconds};
}

// Small files that say what the model is, how it reads and how it may be used.
bool wanted(const std::string& name) {
  static const std::set<std::string> names = {"config.json",
                                              "generation_config.json",
                                              "tokenizer.json",
                                              "tokenizer_config.json",
                                              "tokenizer.model",
                                              "special_tokens_map.json",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "chat_template.jinja",
                                              "chat_template.json",
                                              "model.safetensors",
                                              "adapter_config.json",
                                              "model.safetensors.index.json",
                                              "adapter_model.safetensors",
                                              "README.md",
                                              "LICENSE",
                                              "LICENSE.txt",
                                              "LICENSE.md"};
  return names.contains(name);
}

// The names of the shards in model.safetensors.index.json.
std::set<std::string> shards_of(const std::filesystem::path& index) {
  std::set<std::string> shards;
  const Json map = json_get<Json>(read_json(index), "weight_map", index.string());
  if (!map.is_object()) fail(Exit::bad_input, "{}: weight_map is {}, not an object", index.string(), map.type_name());
  for (const auto& [tensor, shard] : map.items()) {
    if (!shard.is_string()) fail(Exit::bad_input, "{}: weight_map[\"{}\"] is not a file name", index.string(), tensor);
    shards.insert(shard.get<std::string>());
  }
  return shards;
}

Fetched fetch_folder(const std::string& repository, const std::string& revision, const Source& source,
                     const std::filesystem::path& work, const PullOptions& options) {
  if (!source.sha256.empty()) {
    fail(Exit::usage, "{}: a whole repository has no SHA-256; pin it with @<commit> instead", source.uri);
  }
  HttpRequest request = request_of("/api/models/" + repository + "/revision/" + escape(revision), source, options);
  request.limit = 64 << 20;
  Progress silent;
  http_download(request, work / "listing.json", silent);
  const Json listing = read_json(work / "listing.json");
  std::filesystem::remove(work / "listing.json");
  // The commit pins every file to the same state, whatever the branch does meanwhile.
  const std::string commit = json_get<std::string>(listing, "sha", source.uri);
  static const RE2 hexadecimal("[0-9a-f]{7,64}");
  if (!RE2::FullMatch(commit, hexadecimal)) fail(Exit::bad_input, "{}: the hub's commit is \"{}\"", source.uri, commit);

  std::set<std::string> all, names;
  for (const Json& file : json_get<Json>(listing, "siblings", source.uri)) {
    all.insert(json_get<std::string>(file, "rfilename", source.uri));
  }
  std::copy_if(all.begin(), all.end(), std::inserter(names, names.end()), wanted);
  std::vector<std::pair<std::string, std::string>> parts;
  auto take = [&](const std::string& name) {
    const std::string uri = fmt::format("hf://{}@{}/{}", repository, commit, name);
    const std::filesystem::path path = pull({.uri = uri, .sha256 = "", .name = name}, options);
    parts.emplace_back(name, cached_sha256(uri));
    return path;
  };
  if (names.contains("model.safetensors.index.json")) {
    for (const std::string& shard : shards_of(take("model.safetensors.index.json"))) {
      if (!all.contains(shard) || shard.find('/') != shard.npos) {
        fail(Exit::unavailable, "{}: the index names the shard {}, the repository does not have it", source.uri, shard);
      }
      names.insert(shard);
    }
    names.erase("model.safetensors.index.json");
  } else if (!names.contains("model.safetensors") && !names.contains("adapter_model.safetensors")) {
    std::string files;
    for (const std::string& name : all) {
      if (name.ends_with(".gguf")) files += fmt::format("\n  hf://{}@{}/{}", repository, revision, name);
    }
    fail(Exit::unavailable, "{}: the repository has no safetensors{}{}", source.uri,
         files.empty() ? "" : "; name one of its GGUF files:", files);
  }
  for (const std::string& name : names) take(name);
  return {.file = {}, .sha256 = "", .parts = std::move(parts)};
}

Fetched fetch(const Source& source, const std::filesystem::path& work, const PullOptions& options) {
  static const RE2 form(
      "hf://((?:datasets/)?[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)(?:@([A-Za-z0-9][A-Za-z0-9._-]*))?(?:/"
      "(.+))?");
  std::string repository, revision, path;
  if (!RE2::FullMatch(source.uri, form, &repository, &revision, &path)) refuse_form(source, kForm);
  if (revision.empty()) revision = "main";
  if (path.empty() && repository.starts_with("datasets/")) {
    fail(Exit::usage, "{}: name one file of the data set: hf://{}@{}/path/to/file", source.uri, repository, revision);
  }
  if (path.empty()) return fetch_folder(repository, revision, source, work, options);
  const HttpRequest request =
      request_of(fmt::format("/{}/resolve/{}/{}", repository, revision, escape(path)), source, options);
  Progress silent;
  const HttpResult result = http_download(request, work / "file", options.progress ? *options.progress : silent);
  return {.file = work / "file", .sha256 = result.sha256, .parts = {}};
}

}  // namespace

extern const SourceKind source_hf;
const SourceKind source_hf = {kForm, true, accepts, fetch};

}  // namespace retort
