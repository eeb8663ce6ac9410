// Downloads: libcurl with resume, retries and hashing on the way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/progress.h"

namespace retort {

struct HttpRequest {
  std::string url;              ///< https://; http:// only to this machine or with a known sha256
  std::string shown;            ///< what messages call it; may be the user's own URI
  std::string label;            ///< what the progress calls it
  std::string bearer;           ///< a token, sent to the URL's own origin only, never to where it redirects
  std::string sha256;           ///< expected; empty: whatever comes
  uint64_t limit = UINT64_MAX;  ///< bytes a sane answer may have
  double retry_seconds = 1;     ///< the first wait between attempts; it doubles, with jitter
};

struct HttpResult {
  std::string sha256;
  uint64_t bytes = 0;
  /// Headers of every answer on the way (redirects included), names in lower case; the last one of a name wins
  /// (of X-Linked-*: the first).
  std::map<std::string, std::string> headers;
};

/// Fetches `request.url` into `file` and checks it: the expected SHA-256, else the hub's X-Linked-Etag where there is
/// one, and the length. What a broken attempt left in `file` is continued when the server still has the same version
/// (If-Range), in this call and in a later one. Broken connections, time-outs, 408, 429 and 5xx are tried again;
/// Retry-After is obeyed. Errors: unavailable (status, attempts, wrong hash: the file is deleted), io (disk), retry
/// (stopped by a signal).
HttpResult http_download(const HttpRequest& request, const std::filesystem::path& file, Progress& progress);

/// Sends `json` by POST and tries again as a download does. Nothing of the answer is kept. Errors: usage (the URL is no
/// https://, nor http:// to this machine), unavailable (status, attempts), retry (stopped by a signal).
void http_post(const std::string& url, const std::string& json, double retry_seconds = 1);

/// Whether a host of a URL is this machine.
bool is_loopback_url(const std::string& url);

}  // namespace retort
