// A file behind a URL.
#include "core/http.h"
#include "core/source_kind.h"

namespace retort {
namespace {

bool accepts(const std::string& uri) { return uri.starts_with("https://") || uri.starts_with("http://"); }

Fetched fetch(const Source& source, const std::filesystem::path& work, const PullOptions& options) {
  const HttpRequest request{.url = source.uri,
                            .shown = source.uri,
                            .label = source.name.empty() ? source.uri : source.name,
                            .bearer = "",
                            .sha256 = source.sha256,
                            .retry_seconds = options.retry_seconds};
  Progress silent;
  const HttpResult result = http_download(request, work / "file", options.progress ? *options.progress : silent);
  return {.file = work / "file", .sha256 = result.sha256, .parts = {}};
}

}  // namespace

extern const SourceKind source_https;
const SourceKind source_https = {"https://host/path", true, accepts, fetch};

}  // namespace retort
